"""What statistics would reach if each error were normal with just the sigma of the judge.

Right kernels commit less, or are rounded in steps that are bounded: they lie below. A law that they
lay above would be a sigma that is too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

#: Rows of a case, and numbers in each.
Size = tuple[int, int]


def largest(x: float, rows: int, dim: int) -> float:
    """Return P(max|z| < x) of rows x dim normal numbers."""
    return math.erf(x / 2**0.5) ** (rows * dim)


def worst_row(x: float, rows: int, dim: int) -> float:
    """Return P(largest row RMS < x)."""
    return _rms(x, dim) ** rows


def whole(x: float, rows: int, dim: int) -> float:
    """Return P(RMS < x)."""
    return _rms(x, rows * dim)


def _rms(x: float, count: int) -> float:
    """Return P(RMS of `count` normal numbers < x): chi^2 by Wilson and Hilferty (1931)."""
    spread = 2 / (9 * count)
    return 0.5 * (1 + math.erf((x ** (2 / 3) - 1 + spread) / (2 * spread) ** 0.5))


LAWS: dict[str, Callable[[float, int, int], float]] = {
    "max_z": largest,
    "row_rms": worst_row,
    "rms": whole,
}


def expected(name: str, sizes: Mapping[Size, int], edges: Sequence[float]) -> list[float]:
    """Return how many of so many runs of each size fall between `edges`, and above the last."""
    counts = [0.0] * len(edges)
    for (rows, dim), runs in sizes.items():
        below = [LAWS[name](edge, rows, dim) for edge in edges] + [1.0]
        for place in range(len(edges)):
            counts[place] += runs * (below[place + 1] - below[place])
    return counts
