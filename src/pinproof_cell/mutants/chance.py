"""Mutants that err now and then: races, unwritten tiles, orders of summation that nobody fixes."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST, Backward, Problem, changed
from pinproof_cell.mutants.emulation.gradient import Gradients, of_queries
from pinproof_cell.mutants.emulation.softmax import Partial
from pinproof_cell.mutants.mutant import Attention, Family

#: How often they err. 250 repeats see one of 1.2% with 95%.
OFTEN, SELDOM = 0.2, 0.02

Luck = random.Random


def _sometimes(
    chance: float, spoil: Callable[[Tensor, Tensor, Luck], Partial]
) -> Callable[[], Attention]:
    """Return a maker of kernels that spoil their result with a chance, each from the same seed."""

    def make() -> Attention:
        luck = random.Random(7)  # noqa: S311  (not a secret)

        def finish(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
            spoiled = luck.random() < chance and out.numel()
            return spoil(out.clone(), lse.clone(), luck) if spoiled else (out, lse)

        return changed(finish=finish)

    return make


def _stale_tile(out: Tensor, lse: Tensor, luck: Luck) -> Partial:
    start = luck.randrange(0, out.shape[2], HONEST.block)
    out[:, :, start : start + HONEST.block] = torch.nan
    return out, lse


def _torn_row(out: Tensor, lse: Tensor, luck: Luck) -> Partial:
    """Let one row carry what its neighbour holds."""
    row = luck.randrange(out.shape[2])
    out[:, :, row] = out[:, :, row - 1] * 0.5
    return out, lse


def _torn_lse(out: Tensor, lse: Tensor, luck: Luck) -> Partial:
    lse[:, :, luck.randrange(lse.shape[2])] += 0.25
    return out, lse


def _any_order() -> Attention:
    """Return a kernel that visits its tiles in an order that changes, as with atomic sums."""
    luck = random.Random(7)  # noqa: S311

    def schedule(cut: list[range], splits: int) -> list[list[range]]:
        return [luck.sample(cut, len(cut))]

    return changed(schedule=schedule, block=16)


def _any_order_of_queries() -> Attention:
    """Return a kernel that adds its tiles to dQ in an order that changes."""
    luck = random.Random(7)  # noqa: S311

    def step(ds: Tensor, problem: Problem) -> Tensor:
        order = torch.tensor(luck.sample(range(problem.keys), problem.keys), dtype=torch.int64)
        k = problem.k[:, problem.k_head][:, :, order]
        return (
            sum(
                (ds[..., order[part]] @ k[:, :, part] for part in _parts(problem.keys)),
                torch.zeros_like(of_queries(ds, problem)),
            )
            * problem.scale
        )

    return changed(backward_steps=Backward(of_queries=step))


def _parts(keys: int) -> list[slice]:
    return [slice(start, start + 16) for start in range(0, keys, 16)]


def _torn_gradient(chance: float) -> Callable[[], Attention]:
    """Return a maker of kernels whose dK now and then counts a row of tiles twice."""

    def make() -> Attention:
        luck = random.Random(7)  # noqa: S311

        def finish(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
            dq, dk, dv = gradients
            if not dk.numel() or luck.random() >= chance:
                return gradients
            dk = dk.clone()
            dk[:, :, luck.randrange(dk.shape[2])] *= 2
            return dq, dk, dv

        return changed(backward_steps=Backward(finish=finish))

    return make


def _garbage_of_empty() -> Attention:
    """Return a kernel that leaves K in dK of a sequence without queries every second time."""
    luck = random.Random(7)  # noqa: S311

    def finish(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
        dq, dk, dv = gradients
        spoiled = not problem.queries and luck.random() < 0.5
        return (dq, problem.k, dv) if spoiled else (dq, dk, dv)

    return changed(backward_steps=Backward(finish=finish))


_any = Family(name="non-determinism", unsteady=True)

MUTANTS = (
    _any(
        "tile-unwritten-often",
        "B09",
        "a tile is not written, p 0.2",
        make=_sometimes(OFTEN, _stale_tile),
    ),
    _any(
        "tile-unwritten-seldom",
        "B09",
        "a tile is not written, p 0.02",
        make=_sometimes(SELDOM, _stale_tile),
    ),
    _any("row-race-seldom", "B71", "a torn row, p 0.02", make=_sometimes(SELDOM, _torn_row)),
    _any("lse-race-seldom", "B71", "a torn LSE, p 0.02", make=_sometimes(SELDOM, _torn_lse)),
    _any("sum-order-varies", "B68", "bits depend on the order of tiles", make=_any_order),
    _any(
        "grad-order-varies",
        "B68",
        "bits of dQ depend on the order of tiles",
        make=_any_order_of_queries,
        needs=("backward",),
    ),
    _any(
        "grad-race-seldom",
        "B71",
        "a row of dK counts twice, p 0.02",
        make=_torn_gradient(SELDOM),
        needs=("backward",),
    ),
    _any(
        "grad-race-often",
        "B71",
        "a row of dK counts twice, p 0.2",
        make=_torn_gradient(OFTEN),
        needs=("backward",),
    ),
    _any(
        "grad-of-no-queries-sometimes",
        "B03",
        "K in dK of a sequence without queries, p 0.5",
        make=_garbage_of_empty,
        needs=("backward", "varlen", "empty-sequences"),
    ),
)
