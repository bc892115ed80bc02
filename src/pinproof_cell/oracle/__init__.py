"""Attention in float64, and what a correct kernel's rounding depends on."""
