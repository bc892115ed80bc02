"""Lets ``python -m pinproof`` be the `pinproof` command."""

import sys

try:
    from pinproof.cli import main

    main()
except KeyboardInterrupt:
    sys.exit(130)
