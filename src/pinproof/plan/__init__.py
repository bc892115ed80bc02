"""The graph of steps: equal work once, each step with the reason for it."""
