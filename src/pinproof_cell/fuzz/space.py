"""The space of all cases: the factors of a call, their levels, and how case number i is drawn.

A third of the cases put two levels together that no case before them did, so that every pair of
features meets early; the others take each factor's plain level with a probability of their own,
half of them with sizes at the edges of tiles. Imports nothing that the cell needs torch for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from pinproof_cell.fuzz.dice import Dice
from pinproof_cell.suite.cases import KINDS, Case

#: How often a case is drawn anew where its levels do not go together, or a candidate refuses it.
TRIES = 60


@dataclass(frozen=True)
class Sizes:
    """The longest sequence, and the most products of two numbers that q K^T and P V may take."""

    length: int
    work: int


SIZES = {"cpu": Sizes(length=512, work=1 << 22), "cuda": Sizes(length=8192, work=1 << 29)}

#: What a level makes of a case.
Setting = Callable[[Case, Dice, Sizes], Case]


@dataclass(frozen=True)
class Level:
    """One value that a factor can take."""

    factor: str
    name: str
    apply: Setting


def _fixed(factor: str, name: str, **fields: Any) -> Level:
    return Level(factor, name, lambda case, dice, sizes: replace(case, **fields))


def _drawn(factor: str, name: str, draw: Callable[[Case, Dice], dict[str, Any]]) -> Level:
    return Level(factor, name, lambda case, dice, sizes: replace(case, **draw(case, dice)))


def _dim(dice: Dice, most: int) -> int:
    return 8 * dice.size(most // 8)


def _unaligned(case: Case, dice: Dice) -> dict[str, Any]:
    return {"head_dim": dice.pick([size for size in range(1, 256) if size % 8])}


def _window(case: Case, dice: Dice) -> dict[str, Any]:
    longest = max(max(pair) for pair in case.sequences)
    left, right = dice.limit(longest), dice.limit(longest)
    return {"window": (left, right) if (left, right) != (-1, -1) else (0, 0)}


def _causal_window(case: Case, dice: Dice) -> dict[str, Any]:
    left = dice.limit(max(max(pair) for pair in case.sequences))
    return {"causal": True, "window": (max(left, 0), dice.pick((0, 0, 3)))}


def _grouped(case: Case, dice: Dice) -> dict[str, Any]:
    keys = dice.pick((1, 2, 3, 4))
    return {"heads": keys * dice.pick((2, 3, 4, 7, 8)), "heads_k": keys}


def _packed(case: Case, dice: Dice) -> dict[str, Any]:
    """Return q, k and v of one tensor: they must be of one shape."""
    return {"memory": "packed", "seqlen_k": case.seqlen_q, "heads_k": case.heads, "head_dim_v": 0}


def _pair(case: Case, dice: Dice, most: int, name: str) -> tuple[int, int]:
    """Return queries and keys of one sequence."""
    match name:
        case "square":
            return (size := dice.size(most)), size
        case "decode":
            return dice.pick((1, 1, 2, 5)), dice.size(4 * most)
        case "more-queries":
            keys = dice.size(max(most // 2, 1))
            return keys + dice.size(most), keys
        case "one-key":
            return dice.size(most), 1
        case "no-keys":
            return dice.size(most), 0
        case "no-queries":
            return 0, dice.size(most)
    return dice.size(most), dice.size(most)


LENGTHS = ("any", "square", "decode", "more-queries", "one-key", "no-keys", "no-queries")


def _lengths(name: str) -> Level:
    """Return the level that draws lengths of one kind; in a ragged batch every other is of any."""

    def apply(case: Case, dice: Dice, sizes: Sizes) -> Case:
        if case.layout == "dense":
            queries, keys = _pair(case, dice, sizes.length, name)
            return replace(case, seqlen_q=queries, seqlen_k=keys)
        count = dice.pick((1, 2, 3, 5))
        most = max(sizes.length // count, 1)
        pairs = tuple(
            _pair(case, dice, most, name if index % 2 == 0 or dice.chance(0.5) else "any")
            for index in range(count)
        )
        longest_q, longest_k = (max(pair[side] for pair in pairs) for side in (0, 1))
        return replace(case, seqlen_q=longest_q, seqlen_k=longest_k, lengths=pairs)

    return Level("lengths", name, apply)


def _paged(name: str, *pages: int) -> Level:
    return _drawn("layout", name, lambda case, dice: {"layout": "paged", "page": dice.pick(pages)})


#: Every level, the plain one of each factor first, in the order in which they are applied.
LEVELS: tuple[Level, ...] = (
    *(_fixed("dtype", name, dtype=name) for name in ("bf16", "fp16", "fp32")),
    *(_fixed("kind", name, kind=name) for name in KINDS),
    _drawn("head", "aligned", lambda case, dice: {"head_dim": _dim(dice, 128)}),
    _drawn("head", "unaligned", _unaligned),
    _drawn("head", "wide", lambda case, dice: {"head_dim": 128 + _dim(dice, 128)}),
    _drawn(
        "head",
        "value",
        lambda case, dice: {"head_dim": _dim(dice, 256), "head_dim_v": _dim(dice, 256)},
    ),
    _drawn("heads", "equal", lambda case, dice: dict.fromkeys(("heads", "heads_k"), dice.size(4))),
    _drawn("heads", "grouped", _grouped),
    _drawn("heads", "one", lambda case, dice: {"heads": dice.pick((2, 3, 8, 16)), "heads_k": 1}),
    _drawn("batch", "few", lambda case, dice: {"batch": dice.pick((1, 2, 3))}),
    _fixed("batch", "many", batch=9),
    _fixed("layout", "dense"),
    _fixed("layout", "varlen", layout="varlen"),
    _paged("page-small", 1, 2, 4, 8),
    _paged("page-16", 16),
    _paged("page-64", 64),
    _paged("page-256", 256),
    _fixed("layout", "left-padded", layout="left-padded"),
    *(_lengths(name) for name in LENGTHS),
    *(
        _fixed("memory", name, memory=name)
        for name in ("plain", "transposed", "expanded", "last-stride")
    ),
    _drawn("memory", "packed", _packed),
    _drawn("memory", "far", lambda case, dice: {"memory": "far", "batch": 2}),
    _fixed("mask", "full"),
    _fixed("mask", "causal", causal=True),
    _drawn("mask", "window", _window),
    _drawn("mask", "causal-window", _causal_window),
    _fixed("scale", "default"),
    _drawn("scale", "small", lambda case, dice: {"scale": dice.pick((1e-4, 0.01, 0.05))}),
    _drawn("scale", "large", lambda case, dice: {"scale": dice.pick((0.5, 1.0, 3.0, 16.0))}),
    _fixed("softcap", "off"),
    _drawn("softcap", "on", lambda case, dice: {"softcap": dice.pick((0.5, 5.0, 30.0, 1000.0))}),
    _fixed("alibi", "off"),
    _fixed("alibi", "on", alibi=True),
    _fixed("sinks", "off"),
    _fixed("sinks", "on", sinks=True),
    _fixed("splits", "off"),
    _drawn("splits", "on", lambda case, dice: {"splits": dice.pick((1, 2, 3, 7, 16))}),
    _fixed("dropout", "off"),
    _drawn("dropout", "on", lambda case, dice: {"dropout": dice.pick((0.1, 0.17, 0.5, 0.9))}),
    _fixed("backward", "off"),
    _fixed("backward", "on", backward=True),
)
#: Factors whose plain level is no plainer than the others.
EVEN = frozenset({"dtype", "kind", "head"})


def legal(case: Case) -> bool:
    """Return whether the inputs, the oracle and the judge know such a call."""
    dense = case.layout == "dense"
    if not dense and case.memory != "plain":
        return False
    packed = case.layout in ("dense", "varlen")
    if (case.backward or case.dropout) and (case.splits or not packed):
        return False
    if case.dropout and not all(map(all, case.sequences)):
        return False
    if case.memory == "packed":
        alike = (case.seqlen_k, case.heads_k, case.dim_v)
        return alike == (case.seqlen_q, case.heads, case.head_dim)
    return case.memory != "far" or case.batch == 2


def work(case: Case) -> int:
    """Return how many products of two numbers Q K^T and P V take."""
    products = sum(queries * keys for queries, keys in case.sequences)
    return products * case.heads * (case.head_dim + case.dim_v)


@dataclass(frozen=True)
class Space:
    """What a candidate that `supports` some features can be asked, drawn by `seed`."""

    supports: frozenset[str]
    sizes: Sizes
    seed: int

    @cached_property
    def levels(self) -> dict[str, list[Level]]:
        """The admitted levels of each factor, the plain one first."""
        found: dict[str, list[Level]] = {}
        for level in LEVELS:
            if self._admits(level):
                found.setdefault(level.factor, []).append(level)
        return found

    @cached_property
    def pairs(self) -> list[tuple[Level, Level]]:
        """Every two levels of different factors that are worth a meeting, in an order of chance."""
        worth = [
            level
            for factor, levels in self.levels.items()
            for level in (levels if factor in EVEN else levels[1:])
        ]
        found = [(a, b) for a, b in combinations(worth, 2) if a.factor != b.factor]
        random.Random(f"{self.seed}").shuffle(found)  # noqa: S311  (not a secret)
        return found

    def case(self, number: int) -> Case | None:
        """Draw case `number`; None where its levels never go together."""
        source = random.Random(f"{self.seed}/{number}")  # noqa: S311
        pair = self.pairs[number // 2 % len(self.pairs)] if number % 2 == 0 else ()
        for _ in range(TRIES):
            found = self._drawn(source, {level.factor: level for level in pair})
            if legal(found) and not found.features - self.supports and self._fits(found):
                return found
        return None

    def _drawn(self, source: random.Random, chosen: Mapping[str, Level]) -> Case:
        dice = Dice(source, edges=source.random() < 0.5)
        plain = source.choice((0.5, 0.7, 0.9))
        case = Case(1, 1)
        for factor, levels in self.levels.items():
            level = levels[0] if dice.chance(plain) and factor not in EVEN else dice.pick(levels)
            case = chosen.get(factor, level).apply(case, dice, self.sizes)
        return case

    def _fits(self, case: Case) -> bool:
        return work(case) <= self.sizes.work

    def _admits(self, level: Level) -> bool:
        """Return whether some case of this level alone has no feature too many."""
        dice = Dice(random.Random(0), edges=False)  # noqa: S311
        own = {"fp16", "bf16", "fp32"} & self.supports
        base = Case(48, 48, dtype=min(own, default="bf16"))
        drawn = (level.apply(base, dice, self.sizes) for _ in range(TRIES))
        if level.factor == "dtype":
            return level.name in own
        return any(not case.features - self.supports for case in drawn)
