"""What the timed points of a cell claim. Pure.

A candidate that fails while it is timed fails; that its speed counts, it must be what the cell is
about (`speed.fastest`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pinproof.judge.speed import Speed
from pinproof.judge.verdict import Claim, Verdict

if TYPE_CHECKING:
    from pinproof.matrix.matrixfile import Policy

_VERDICTS = {
    "CRASH": Verdict.CRASH,
    "HANG": Verdict.CRASH,
    "ERROR": Verdict.UNSAFE,
    "WRONG": Verdict.UNSAFE,
    "NOT-RUN": Verdict.INCONCLUSIVE,
    "HARNESS-BROKEN": Verdict.HARNESS_BROKEN,
}


def claims(throughput: Mapping[str, Any], speed: Speed | None, policy: Policy) -> Iterator[Claim]:
    """Claim from what went wrong while timed, and from the speed itself."""
    if not throughput:
        return
    for point in throughput.get("points", ()):
        if verdict := _VERDICTS.get(point["status"]):
            why = point.get("signal") or point.get("reason") or point["status"].lower()
            yield verdict, f"{point['candidate']} while timed at {point['point']}: {why}"
    if speed is None:
        yield Verdict.UNVERIFIED, "throughput: no point could be measured"
    elif policy.min_throughput is not None and speed.high < policy.min_throughput:
        yield (
            Verdict.SLOW,
            f"{speed.candidate} runs at {speed} of the Triton baseline; "
            f"the policy asks for {policy.min_throughput:g}",
        )
