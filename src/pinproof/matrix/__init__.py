"""The matrix file, its axes, rules and facts, and the cells that it stands for."""
