"""What the suite asks of a candidate: every check, by its id. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Protocol

from pinproof_cell.suite import grid
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.identities import Identity, catalogue

LEVELS = ("quick", "full")
DEVICES = ("cpu", "cuda")


class Check(Protocol):
    """One question to a candidate, which `pinproof_cell.suite.examine` knows how to put.

    A `Case` asks for output, log-sum-exp and gradients themselves; an `Identity` what holds between
    two answers; a `Repeats` whether the answer is the same each time.
    """

    @property
    def id(self) -> str:
        """A readable name, unique in the suite."""

    @property
    def case(self) -> Case:
        """The call that it is about."""

    @property
    def features(self) -> frozenset[str]:
        """What a candidate must support to be asked it."""

    @property
    def uses(self) -> tuple[str, ...]:
        """The uses that a failure concerns."""


@dataclass(frozen=True)
class Repeats:
    """Call a case `count` times on the same inputs: every bit must come again.

    Where it need not be ``exact`` numbers may differ, as long as each is a correct kernel's: a
    decode that cuts its keys may merge the parts in any order.
    """

    case: Case
    count: int
    exact: bool = True

    @property
    def id(self) -> str:
        """Repeats, their number, and the case: repeats250@128x128-d64-bf16-diffuse."""
        return f"repeats{self.count}@{self.case.id}"

    @property
    def features(self) -> frozenset[str]:
        """Those of the case."""
        return self.case.features

    @property
    def uses(self) -> tuple[str, ...]:
        """Those of the case."""
        return self.case.uses


#: So many calls on the same inputs see an error of 1.2% with a chance of 95%.
REPEATS = {"quick": 50, "full": 250}


def suite(level: str = "full", device: str = "cpu") -> tuple[Check, ...]:
    """Return the checks of a suite, "quick" or "full", for a device, "cpu" or "cuda"."""
    # Cases that are known to kill their process come last: no fresh child has to follow.
    return tuple(sorted(_suite(level, device), key=lambda check: "no-keys" in check.features))


def _suite(level: str, device: str) -> Iterator[Check]:
    yield from grid.suite(level, device)
    yield from catalogue.suite(level)
    # More than one tile, and small enough to be called often.
    for dtype in ("bf16", "fp16"):
        yield Repeats(Case(128, 128, dtype=dtype), REPEATS[level])
    yield Repeats(Case(113, 203, heads=4, causal=True, backward=True), REPEATS[level])
    if level == "full":
        yield Repeats(Case(1, 339, heads=4), REPEATS[level], exact=False)


@cache
def _known() -> dict[str, Check]:
    return {
        check.id: check for level in LEVELS for device in DEVICES for check in suite(level, device)
    }


def by_id(name: str) -> Check:
    """Return the check called `name`. Raises KeyError where there is none."""
    return _known()[name]


def kind(check: Check) -> str:
    """Return "case", "identity" or "repeats"."""
    if isinstance(check, Repeats):
        return "repeats"
    return "identity" if isinstance(check, Identity) else "case"


def facts(check: Check) -> dict[str, Any]:
    """Return what a check is, for documents: kind, uses, features, and the case's own fields."""
    said = [(field.name, getattr(check.case, field.name), field.default) for field in fields(Case)]
    return {
        "kind": kind(check),
        "uses": list(check.uses),
        "features": sorted(check.features),
        "case": {name: value for name, value, default in said if value != default},
    }
