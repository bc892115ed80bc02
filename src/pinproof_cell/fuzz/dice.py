"""Numbers that a kernel may stumble over: at the edges of tiles, or anywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

#: Kernels cut queries, keys and heads into tiles of these.
TILES = (8, 16, 32, 64, 128, 256)
#: A window that reaches beyond every sequence, and fits 32 bits only just with a place added.
HUGE = 2**30


@dataclass(frozen=True)
class Dice:
    """One case's source of chance. With `edges` sizes lie at or beside the edges of tiles."""

    source: random.Random
    edges: bool

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of `items`."""
        return self.source.choice(items)

    def chance(self, probability: float) -> bool:
        """Return True with `probability`."""
        return self.source.random() < probability

    def size(self, most: int, least: int = 1) -> int:
        """Return a size from `least` to `most`, as often small as large."""
        if self.edges:
            near = {
                tile * times + step for tile in TILES for times in (1, 2) for step in (-1, 0, 1)
            }
            fit = sorted(size for size in near | {1, 2, 3} if least <= size <= most)
            if fit:
                return self.pick(fit)
        ratio = (most + 1) / max(least, 1)
        return max(least, min(most, int(max(least, 1) * ratio ** self.source.random())))

    def limit(self, length: int) -> int:
        """Return one side of a window over `length` keys: none, 0, within, just at, or huge."""
        some = (-1, 0, 0, self.size(max(length, 1)), self.size(max(length, 1)))
        return self.pick((*some, max(length - 1, 0), length, length + 1, HUGE))
