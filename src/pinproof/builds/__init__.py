"""What is built from source: its inputs, key and knobs."""
