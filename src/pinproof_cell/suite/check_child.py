"""The suite in a process without pytest: the checks of a session, one after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pinproof_cell.suite import session

#: The exit status where the candidate cannot be loaded.
UNAVAILABLE = 3


def main(words: Sequence[str] | None = None) -> int:
    """Ask every chosen check that no child before this one has begun."""
    parser = argparse.ArgumentParser()
    session.arguments(parser.add_argument)
    opened = session.Session(parser.parse_args(words))
    opened.prepare()
    if opened.open():
        return UNAVAILABLE
    for check in opened.checks():
        opened.ask(check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
