"""What compiled libraries hold, read from their bytes: GPU code, needs, symbols of torch."""
