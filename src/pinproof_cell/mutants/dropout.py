"""Mutants of dropout in the forward: its rate, its scale, and whose mask it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import Problem, changed
from pinproof_cell.mutants.emulation.softmax import State, Tile, dropped, fold
from pinproof_cell.mutants.mutant import Attention, Family


def _drawn(
    edit: Callable[[Tensor, Problem], Tensor],
) -> Callable[[Problem], Tensor | None]:
    """Return a step that makes something else of what dropout draws."""

    def step(problem: Problem) -> Tensor | None:
        found = dropped(problem)
        return None if found is None else edit(found, problem)

    return step


def _unscaled(found: Tensor, problem: Problem) -> Tensor:
    return found * (1 - problem.dropout)


def _rescaled(found: Tensor, problem: Problem) -> Tensor:
    return found / (1 - problem.dropout)


def _one_head(found: Tensor, problem: Problem) -> Tensor:
    return found[:, :1].expand_as(found)


def _one_batch(found: Tensor, problem: Problem) -> Tensor:
    return found[:1].expand_as(found)


def _one_row(found: Tensor, problem: Problem) -> Tensor:
    return found[:, :, :1].expand_as(found)


def _one_tile(found: Tensor, problem: Problem) -> Tensor:
    """Repeat the mask of the first 16 keys."""
    return found[..., torch.arange(found.shape[-1]) % 16]


def _exchanged(problem: Problem) -> Tensor | None:
    """Take the probability for that of keeping."""
    return dropped(replace(problem, dropout=1 - problem.dropout)) if problem.dropout else None


def _half(found: Tensor, problem: Problem) -> Tensor:
    """Let back in every second key that was left out, and scale as if not."""
    back = torch.arange(found.shape[-1]) % 2 == 0
    return torch.where(back, 1 / (1 - problem.dropout), found)


def _in_sum(state: State, tile: Tile) -> State:
    """Leave dropped keys out of the sum too, and of the LSE."""
    if tile.weights is None:
        return fold(state, tile)
    hidden = tile.scores.masked_fill(tile.weights == 0, -torch.inf)
    return fold(state, replace(tile, scores=hidden))


def _constant_seed() -> Attention:
    """Return a kernel that draws from a seed of its own, the same in every call."""

    def step(problem: Problem) -> Tensor | None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return dropped(problem)

    return changed(dropped=step)


_drop = Family(name="dropout", needs=("dropout",))

MUTANTS = (
    _drop("dropout-ignored", "B80", "dropout is silently ignored", dropped=lambda problem: None),
    _drop("dropout-unscaled", "B57", "kept keys are not scaled", dropped=_drawn(_unscaled)),
    _drop("dropout-scaled-twice", "B57", "kept keys are scaled twice", dropped=_drawn(_rescaled)),
    _drop("dropout-in-sum", "B57", "the sum leaves dropped keys out", fold=_in_sum),
    _drop("dropout-rate-exchanged", "B57", "p is the chance of keeping", dropped=_exchanged),
    _drop("dropout-rate-halved", "B57", "half as many are dropped", dropped=_drawn(_half)),
    _drop("dropout-of-one-head", "B57", "all heads drop the same", dropped=_drawn(_one_head)),
    _drop("dropout-of-one-batch", "B57", "all batches drop the same", dropped=_drawn(_one_batch)),
    _drop("dropout-of-one-row", "B57", "all rows drop the same", dropped=_drawn(_one_row)),
    _drop(
        "dropout-of-one-tile", "B57", "the mask repeats along the keys", dropped=_drawn(_one_tile)
    ),
    _drop("dropout-seed-constant", "B57", "every call drops the same", make=_constant_seed),
)
