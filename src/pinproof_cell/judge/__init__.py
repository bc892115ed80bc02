"""The z-rule: what a correct kernel may commit, and what not."""
