"""The cell's side of Pinproof: runs inside a cell, with that cell's Python, torch and Triton.

It imports the standard library, numpy, torch, triton and the candidate that it is asked to load,
and never the host package ``pinproof``. Requests come in and results go out as JSON files.
"""
