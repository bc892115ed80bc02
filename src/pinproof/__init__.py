"""Pinproof proves which torch, CUDA, flash-attn and vLLM combination is safe to pin on a GPU.

This package is the *host*: it plans, starts, records, judges and reports. It never imports
torch, triton or vllm; what touches them lives in ``pinproof_cell`` and runs in a cell's own
environment.
"""

__version__ = "0.1.0"
