"""What runs the plan: processes, environments, nox sessions, the scheduler."""
