"""Mutants that err now and then: races, unwritten tiles, orders of summation that nobody fixes."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from pinproof_cell.mutants import Attention, Mutant
from pinproof_cell.mutants.emulation import HONEST, Call, Partial, changed

#: How often they err. 250 repeats see one of 1.2% with 95%.
OFTEN, SELDOM = 0.2, 0.02


def _sometimes(
    chance: float, spoil: Callable[[Tensor, Tensor, random.Random], Partial]
) -> Callable[[], Attention]:
    """Return a maker of kernels that spoil their result with a chance, each from the same seed."""

    def make() -> Attention:
        luck = random.Random(7)  # noqa: S311  (not a secret)

        def finish(out: Tensor, lse: Tensor, call: Call) -> Partial:
            spoiled = luck.random() < chance and out.numel()
            return spoil(out.clone(), lse.clone(), luck) if spoiled else (out, lse)

        return changed(finish=finish)

    return make


def _stale_tile(out: Tensor, lse: Tensor, luck: random.Random) -> Partial:
    start = luck.randrange(0, out.shape[2], HONEST.block)
    out[:, :, start : start + HONEST.block] = torch.nan
    return out, lse


def _torn_row(out: Tensor, lse: Tensor, luck: random.Random) -> Partial:
    """Let one row carry what its neighbour holds."""
    row = luck.randrange(out.shape[2])
    out[:, :, row] = out[:, :, row - 1] * 0.5
    return out, lse


def _torn_lse(out: Tensor, lse: Tensor, luck: random.Random) -> Partial:
    lse[:, :, luck.randrange(lse.shape[2])] += 0.25
    return out, lse


def _any_order() -> Attention:
    """Return a kernel that visits its tiles in an order that changes, as with atomic sums."""
    luck = random.Random(7)  # noqa: S311

    def schedule(cut: list[range], splits: int) -> list[list[range]]:
        return [luck.sample(cut, len(cut))]

    return changed(schedule=schedule, block=16)


def _any(id: str, bug: str, stands_for: str, make: Callable[[], Attention]) -> Mutant:  # noqa: A002
    return Mutant(id=id, family="non-determinism", bug=bug, stands_for=stands_for, make=make)


MUTANTS = (
    _any(
        "tile-unwritten-often",
        "B09",
        "a tile is not written, p 0.2",
        _sometimes(OFTEN, _stale_tile),
    ),
    _any(
        "tile-unwritten-seldom",
        "B09",
        "a tile is not written, p 0.02",
        _sometimes(SELDOM, _stale_tile),
    ),
    _any("row-race-seldom", "B71", "a torn row, p 0.02", _sometimes(SELDOM, _torn_row)),
    _any("lse-race-seldom", "B71", "a torn LSE, p 0.02", _sometimes(SELDOM, _torn_lse)),
    _any("sum-order-varies", "B68", "bits depend on the order of tiles", _any_order),
)
