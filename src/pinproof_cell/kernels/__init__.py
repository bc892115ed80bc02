"""Pinproof's own attention in Triton, forward and backward."""
