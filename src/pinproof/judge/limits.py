"""What not to call though the cell is SAFE, in words that a user can act on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pinproof.judge.checks import NOT_RUN, PASS, UNSUPPORTED, Candidate, Check, Correctness, ended
from pinproof.judge.describe import describe, features
from pinproof.judge.speed import Speed

if TYPE_CHECKING:
    from pinproof.matrix.matrixfile import Policy

#: How a status reads in a sentence about a candidate, worst first.
VERBS = {
    "CRASH": "crashes",
    "HANG": "hangs",
    "ERROR": "raises an error",
    "FAIL": "gives wrong numbers",
    "FLAKY": "gives other numbers each time",
    "DEGRADED": "is less precise than a correct kernel",
}
#: How it reads as advice.
_ADVICE = {"DEGRADED": "expect less precision", NOT_RUN: "was not checked"}


def grouped(checks: Iterable[Check]) -> list[Sequence[Check]]:
    """Group failing checks by status, signal and known defect, the worst first."""
    groups: dict[tuple[int, str, str], list[Check]] = {}
    order = list(VERBS)
    for check in checks:
        if check.status in VERBS:
            key = (order.index(check.status), check.signal or "", check.defect or "")
            groups.setdefault(key, []).append(check)
    return [groups[key] for key in sorted(groups)]


def limits(correctness: Correctness, speed: Speed | None, policy: Policy) -> Iterator[str]:
    """Yield what fails outside the asked uses, what is refused, and what was not measured."""
    for candidate in correctness.candidates:
        yield from (f"{candidate.name}: {limit}" for limit in _limits(candidate, policy))
    floor = policy.min_throughput
    if speed is not None and floor is not None and speed.low < floor <= speed.high:
        yield f"{speed.candidate}: {speed} may be below the asked {floor:g}"


def _limits(candidate: Candidate, policy: Policy) -> Iterator[str]:
    for known in candidate.known:
        if known.shown:
            yield f"do not call with {known.avoid}: {known.sees} ({known})"
    inside, outside = candidate.asked(policy), candidate.asked(policy, outside=True)
    passing = ended(candidate.checks, PASS)
    unnamed = [check for check in outside if check.defect is None]
    for group in (*grouped(unnamed), ended(outside, NOT_RUN)):
        if group:
            advice = _ADVICE.get(group[0].status, "do not call")
            yield f"{advice} with {describe(group, passing)} ({group[0].told})"
    if passing and (refused := _refused(candidate, inside, passing)):
        yield f"refuses {refused}"
    if absent := sorted({name for check in candidate.checks for name in check.absent}):
        yield f"was built without {', '.join(absent)}, and refuses that"


def _refused(candidate: Candidate, checks: Iterable[Check], passing: Sequence[Check]) -> str:
    """Say what a candidate refuses: features that it does not admit, else what is in the checks."""
    refused = [check for check in ended(checks, UNSUPPORTED) if not check.absent]
    lacking = {name for check in refused for name in check.features - candidate.supports}
    others = [check for check in refused if check.features <= candidate.supports]
    words = [features(lacking)] if lacking else []
    return ", ".join([*words, *([describe(others, passing)] if others else [])])
