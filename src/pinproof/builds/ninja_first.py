"""Stands in for ninja: puts the slow units of a build first, then becomes the real one.

Torch writes ``build.ninja`` in the order in which a project lists its sources. Where the slow ones
come last, a few of them run alone at the end while the other processors wait. Ninja starts edges
of equal rank in the order of the file, so it is enough to sort the file; what comes out is equal.

Run as a program, with the standard library alone: the PATH of a build begins with a directory
that holds a ``ninja`` which calls this.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

#: Where a program that stands in for ninja finds the real one, and the patterns, slowest first.
REAL, SLOWEST = "PINPROOF_NINJA", "PINPROOF_SLOWEST"


def sorted_slowest_first(text: str, slowest: Sequence[str]) -> str:
    """Return a ``build.ninja`` with the statements that match `slowest` first, in its order.

    Rules, variables and every other line stay where they are.
    """
    blocks = re.split(r"(?m)^(?=build )", text)
    head, edges = blocks[0], blocks[1:]
    # What follows the last edge (a rule, a default) is no part of it.
    tail = ""
    if edges:
        match = re.match(r"build .*\n(?:[ \t]+.*\n)*", edges[-1])
        end = match.end() if match else len(edges[-1])
        edges[-1], tail = edges[-1][:end], edges[-1][end:]

    def rank(edge: str) -> int:
        found = (n for n, pattern in enumerate(slowest) if re.search(pattern, edge))
        return next(found, len(slowest))

    return head + "".join(sorted(edges, key=rank)) + tail


def install(directory: Path, python: Path, slowest: Sequence[str]) -> dict[str, str]:
    """Write a ``ninja`` into `directory` that sorts before it builds; return its variables."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "ninja"
    program.write_text(f'#!/bin/sh\nexec "{python}" -I "{Path(__file__)}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return {SLOWEST: "\n".join(slowest)}


def main() -> None:
    """Sort ``build.ninja`` in the working directory, and become ninja."""
    file = Path("build.ninja")
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        better = sorted_slowest_first(text, os.environ.get(SLOWEST, "").splitlines())
        if better != text:
            file.write_text(better, encoding="utf-8")
    os.execv(os.environ[REAL], ["ninja", *sys.argv[1:]])  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
