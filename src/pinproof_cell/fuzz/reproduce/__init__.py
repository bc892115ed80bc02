"""Standalone scripts that show one failure: torch, the candidate, and nothing of Pinproof."""
