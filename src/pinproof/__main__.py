"""Lets ``python -m pinproof`` be the `pinproof` command."""

import gc
import sys

try:
    # What is imported stays: looking for garbage in it, at the end most of all, takes as long as
    # a sixth of the imports.
    gc.disable()
    from pinproof.cli import main

    gc.freeze()
    gc.enable()
    main()
except KeyboardInterrupt:
    sys.exit(130)
