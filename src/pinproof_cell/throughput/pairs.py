"""The statistics of interleaved pairs: log ratios, a hierarchical bootstrap, when to stop.

A round times the candidate and the reference side by side; its log ratio is free of every slow
drift of the machine. Rounds of one process share that process's luck (addresses, clocks), so a
sample is a list of processes, each a list of rounds, and is resampled at both levels.
Only the standard library: the host's tests run it without numpy or torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

#: Draws of the bootstrap, and the share of them between `Interval.low` and `Interval.high`.
DRAWS = 2_000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A ratio and the ends of its bootstrap interval, all as plain ratios (1.0: no difference)."""

    ratio: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval in log ratio: 0.01 is about plus or minus 1%."""
        return (math.log(self.high) - math.log(self.low)) / 2

    @property
    def differs(self) -> bool:
        """True where the interval excludes 1."""
        return self.low > 1.0 or self.high < 1.0


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When one process has seen enough rounds.

    ``precision`` is the half-width to reach, ``least`` and ``most`` bound the rounds of one
    process, ``seconds`` its time. The interval is looked at every ``every`` rounds only: each
    look costs milliseconds, and each is one more chance to stop on a lucky streak.
    """

    precision: float = 0.01
    least: int = 20
    most: int = 30
    seconds: float = 20.0 / 3
    every: int = 5

    def enough(self, ratios: Sequence[float], elapsed: float) -> bool:
        """Return True where no further round is wanted after `ratios` and `elapsed` seconds."""
        count = len(ratios)
        if count >= self.most or (count and elapsed >= self.seconds):
            return True
        if count < self.least or (count - self.least) % self.every:
            return False
        return interval([ratios]).half_width <= self.precision


def log_ratio(candidate: float, reference: float) -> float:
    """Return ln(reference / candidate) of two times: positive where the candidate is faster.

    Raises ValueError for a time that is not positive and finite: a clock that did not move has
    measured nothing.
    """
    if not (0 < candidate < math.inf and 0 < reference < math.inf):
        raise ValueError(f"not a pair of positive times: {candidate!r}, {reference!r}")
    return math.log(reference) - math.log(candidate)


def median(values: Sequence[float]) -> float:
    """Return the median. A quarter of the cost of `statistics.median`, which the draws pay."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of `values` lie, between ranks linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def interval(
    processes: Sequence[Sequence[float]], *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Estimate exp(median of process medians) of log ratios, with a hierarchical bootstrap.

    Each draw picks as many processes as there are, with replacement, and as many rounds of each
    as it has. With three processes that disagree, the interval reaches from the lowest of their
    medians to the highest: about 75% for the process level alone, which is what three can tell.
    The same `seed` gives the same interval, so evidence can be computed again from its samples.

    Raises ValueError where no process has a round.
    """
    filled = [list(rounds) for rounds in processes if rounds]
    if not filled:
        raise ValueError("no rounds to estimate from")
    rng = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    centres = [
        median(
            [median(rng.choices(rounds, k=len(rounds))) for rounds in _redraw(rng, filled)],
        )
        for _ in range(draws)
    ]
    tail = (1 - level) / 2
    centre = median([median(rounds) for rounds in filled])
    return Interval(
        ratio=math.exp(centre),
        low=math.exp(min(centre, quantile(centres, tail))),
        high=math.exp(max(centre, quantile(centres, 1 - tail))),
    )


def _redraw(rng: random.Random, processes: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    return rng.choices(processes, k=len(processes)) if len(processes) > 1 else processes


def settled(blocks: Sequence[float], *, count: int = 5, change: float = 0.01) -> bool:
    """Return True where the last `count` block medians lie within `change` of each other."""
    last = blocks[-count:]
    return len(last) == count and max(last) <= min(last) * (1 + change)
