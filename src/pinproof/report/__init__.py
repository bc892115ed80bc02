"""What a person and a machine read of a run, and the pins."""
