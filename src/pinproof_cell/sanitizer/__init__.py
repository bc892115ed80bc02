"""Candidates under NVIDIA's compute-sanitizer: memory, races, initialisation, synchronisation."""
