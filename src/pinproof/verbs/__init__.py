"""The verbs of the `pinproof` command, a module for what belongs together."""
