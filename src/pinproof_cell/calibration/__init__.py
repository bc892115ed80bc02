"""Calibration of the judge: kernels that are right, on cases of chance, and what they reach."""
