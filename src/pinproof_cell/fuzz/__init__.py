"""The search for failures that no fixed case has: draw, judge, shrink, group, reproduce."""
