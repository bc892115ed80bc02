"""What evidence must have covered before it can speak for a cell. Pure.

A pass on another GPU, of a few easy cases, or of the forward pass alone is no proof: each function
yields what is missing, in words, and a cell with anything missing is never SAFE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pinproof.judge.limits import asked, features, ids
from pinproof.judge.speed import is_about

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell
    from pinproof.matrix.matrixfile import Policy

#: What serving calls all the time: some candidate that the cell is about must pass each of these.
MUST_PASS = ("bf16", "causal", "grouped heads")

#: Uses that call the backward pass, which the suite does not check yet.
WITH_BACKWARD = ("training", "everything")


def devices(cell: Cell, measured: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the stages that ran on something else than the cell's target.

    `measured` is the data of the measuring stages by name; each names its device.
    """
    for stage, data in measured.items():
        seen = (data.get("device") or {}).get("capability") if data else None
        if data and seen != cell.target:
            yield f"{stage} ran on {seen or 'an unknown device'}, not on {cell.target}"


def features_passed(
    cell: Cell, candidates: Sequence[Mapping[str, Any]], policy: Policy
) -> Iterator[str]:
    """Yield the must-have features that no candidate of the cell passed a case with."""
    about = [item for item in candidates if is_about(cell, item["name"])] or list(candidates)
    passed: set[str] = set()
    for candidate in about:
        for case in ids(asked(candidate, policy), "PASS"):
            passed |= features(case).keys()
    missing = [feature for feature in MUST_PASS if feature not in passed]
    if missing and candidates:
        yield f"no candidate passed a case with {', or '.join(missing)}"


def uses(policy: Policy) -> Iterator[str]:
    """Yield the asked uses that the suite cannot prove."""
    for use in policy.uses:
        if use in WITH_BACKWARD:
            yield f"the backward pass, which {use} needs, is not checked by this version"
