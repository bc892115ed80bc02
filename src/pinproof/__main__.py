"""Lets ``python -m pinproof`` be the `pinproof` command."""

from pinproof.cli import main

main()
