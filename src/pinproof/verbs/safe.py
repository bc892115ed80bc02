"""Verbs that give away what is SAFE: the pins of a cell, and its very files."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from pinproof.command import Asked, Verbs, option, switch
from pinproof.errors import ExitCode
from pinproof.options import root
from pinproof.verbs.shared import (
    BACKEND,
    FILE,
    JSON,
    MATRIX,
    STORE,
    WHEELHOUSE,
    options_of,
    print_json,
)

verbs = Verbs()


@verbs.verb(
    "pins",
    option("cell", metavar="CELL|best", nargs="?", default="best", help="a safe cell"),
    option("--out", metavar="DIR", type=Path, default=Path("pins"), help="where to write"),
    *(MATRIX, *BACKEND, FILE, STORE, JSON),
    examples=["pinproof pins best --matrix cpu --out pins"],
)
def pins(asked: Asked) -> ExitCode:
    """Write constraints.txt and PINS.md of a cell that is SAFE, from its stored evidence."""
    from pinproof import takeaway

    asked.cells = [asked.cell]
    written = takeaway.pin(options_of(asked), root() / asked.out)
    if asked.json:
        print_json({"schema": 1, "files": [str(path) for path in written]})
    else:
        print(*written, sep="\n")
    return ExitCode.OK


@verbs.verb(
    "archive",
    option("cells", metavar="CELL|best", nargs="*", help="safe cells; else the best one"),
    option(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("archive"),
        help="the archive (default: archive); what lies there is kept",
    ),
    switch("--verify", "only read the archive again, and name the files that are damaged"),
    *(MATRIX, *BACKEND, switch("--offline", "no network"), WHEELHOUSE, FILE, STORE, JSON),
    examples=[
        "pinproof archive cpu-ccda2b --out /mnt/archive",
        "pinproof archive --verify --out /mnt/archive",
    ],
)
def archive(asked: Asked) -> ExitCode:
    """Keep the very files that SAFE cells install, from which they can be made without a network.

    Exit code: 1 a cell is not SAFE, or a file of the archive is damaged; 2 DIR holds something
    else; 4 a file could not be fetched.
    """
    from pinproof import takeaway
    from pinproof.locks import archive as archives

    out = root() / asked.out
    if asked.verify:
        damaged = archives.verify(out)
        if asked.json:
            print_json({"schema": 1, "damaged": [asdict(each) for each in damaged]})
        else:
            print(*(f"damaged    {each}" for each in damaged), sep="\n")
            print(f"archive    {out}: {len(damaged)} files are damaged")
        return ExitCode.UNSAFE if damaged else ExitCode.OK
    house = takeaway.archive(
        options_of(asked),
        out,
        lambda text, done, total: print(f"{done:>4}/{total} {text[:120]}", file=sys.stderr),
    )
    if asked.json:
        files = [asdict(wheel) for wheel in house.wheels]
        print_json({"schema": 1, "cells": sorted(house.cells), "files": files})
    else:
        print(f"archive    {out}: {len(house.wheels)} wheels, {house.size / 1e6:,.0f} MB")
        print(*(f"cell       {cell}" for cell in sorted(house.cells)), sep="\n")
    return ExitCode.OK
