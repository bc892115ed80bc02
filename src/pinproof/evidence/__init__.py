"""What a stage leaves behind, and where."""
