"""How fast a cell's attention is against the Triton baseline. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell

#: The candidates that an axis brings, by the start of their names.
_PREFIX = {"vllm": "vllm-", "flash-attn": "flash-attn"}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The time of the Triton baseline over that of one candidate: more than 1 is faster.

    Geometric means over the points that were timed, of the ratio and of both ends of its interval.
    """

    candidate: str
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"


def asks_for(cell: Cell, axis: str) -> bool:
    """Say if the cell brings a package of its own on that axis."""
    return cell.axis(axis) not in ("none", "bundled")


def fastest(cell: Cell, throughput: Mapping[str, Any]) -> Speed | None:
    """Return the fastest of the candidates that the cell is about; None where none was timed.

    AMBIGUOUS points count too, with their wide interval: without them the candidates of a cell
    would be compared over different points.
    """
    timed: dict[str, list[Mapping[str, Any]]] = {}
    for point in throughput.get("points", ()):
        if point["status"] in ("OK", "AMBIGUOUS") and point["ratio"]:
            timed.setdefault(point["candidate"], []).append(point)
    speeds = [_speed(name, timed[name]) for name in sorted(timed) if is_about(cell, name)]
    return max(speeds, key=lambda speed: speed.ratio, default=None)


def is_about(cell: Cell, candidate: str) -> bool:
    """Say if it is of vLLM where vllm is an axis, else of flash-attn, else of torch."""
    for axis, prefix in _PREFIX.items():
        if asks_for(cell, axis):
            return candidate.startswith(prefix)
    return not candidate.startswith(tuple(_PREFIX.values()))


def _speed(candidate: str, points: Sequence[Mapping[str, Any]]) -> Speed:
    def mean(key: str) -> float:
        return math.exp(math.fsum(math.log(point[key]) for point in points) / len(points))

    return Speed(candidate=candidate, ratio=mean("ratio"), low=mean("low"), high=mean("high"))
