"""The measure of the suite: its checks put to every mutant, and which of them are killed."""
