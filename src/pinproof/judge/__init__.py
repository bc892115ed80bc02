"""What the evidence and the policy together say of a cell."""
