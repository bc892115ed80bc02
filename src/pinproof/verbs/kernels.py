"""Verbs about the kernels under test: search them for failures, list their known defects."""

from __future__ import annotations

import sys

from pinproof.command import Asked, Verbs, option, switch
from pinproof.errors import ExitCode
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
    "fuzz",
    option("cell", metavar="CELL", help="the id of a cell"),
    option(
        "--candidate",
        dest="candidates",
        metavar="NAME",
        action="append",
        help="only this kernel of it; may be repeated",
    ),
    option(
        "--seconds", metavar="N", type=float, default=60.0, help="how long for each (default: 60)"
    ),
    option("--seed", metavar="N", type=int, default=0, help="of cases and inputs (default: 0)"),
    *(MATRIX, *BACKEND, switch("--offline", "no network"), WHEELHOUSE, FILE, STORE, JSON),
    examples=[
        "pinproof fuzz cpu-ccda2b --seconds 120",
        "pinproof fuzz sm90-79a90d --candidate vllm-fa3 --seed 7",
    ],
)
def search(asked: Asked) -> ExitCode:
    """Search the kernels of a cell for failures, inside its environment.

    Each failure is made small, named where it is a known defect, and kept with a script that shows
    it. Exit code: 0 nothing new, 1 a failure that is no known defect, 3 nothing could be judged.
    """
    from pinproof import fuzz

    hunt = fuzz.Hunt(
        candidates=tuple(asked.candidates or ()), seconds=asked.seconds, seed=asked.seed
    )
    asked.cells = [asked.cell]
    found = fuzz.fuzz(options_of(asked), hunt, sys.stderr if asked.json else sys.stdout)
    if asked.json:
        print_json(fuzz.document(asked.cell, found))
    else:
        print(*fuzz.summary(found), sep="\n")
    return fuzz.exit_code(found)


@verbs.verb("defects", JSON, examples=["pinproof defects --json"])
def defects(asked: Asked) -> ExitCode:
    """List the known defects of the kernels under test, and what not to call for each."""
    from pinproof.report import defects as known

    document = known.document()
    if asked.json:
        print_json(document)
    else:
        print(known.text(document))
    return ExitCode.OK
