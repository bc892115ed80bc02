"""Mutants of the log-sum-exp alone: the output is right, what merges and backward read is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST, Problem
from pinproof_cell.mutants.emulation.softmax import Partial, State, close
from pinproof_cell.mutants.mutant import Family


def _lse(edit: Callable[[Tensor, Problem], Tensor]) -> Callable[[Tensor, Tensor, Problem], Partial]:
    return lambda out, lse, problem: (out, edit(lse, problem))


def _sum_alone(state: State) -> Partial:
    out, lse = close(state)
    return out, torch.where(torch.isneginf(lse), lse, torch.log(state.total))


def _maximum_alone(state: State) -> Partial:
    return close(state)[0], state.maximum


def _wrong_strides(lse: Tensor, problem: Problem) -> Tensor:
    """Return the LSE written as (batch, seqlen_q, heads) and read as (batch, heads, seqlen_q)."""
    return lse.transpose(1, 2).reshape(lse.shape)


def _first_tile(lse: Tensor, problem: Problem) -> Tensor:
    """Return the LSE with the rows of every tile written to the places of the first."""
    rows = torch.arange(lse.shape[2]) % HONEST.block
    return lse[:, :, rows]


def _raw_maximum(state: State) -> Partial:
    """Mix base-2 maximum and natural sum."""
    out, lse = close(state)
    wrong = state.maximum / math.log(2) + torch.log(state.total)
    return out, torch.where(torch.isneginf(lse), lse, wrong)


def _empty_as(value: float) -> Callable[[Tensor, Problem], Tensor]:
    return lambda lse, problem: lse.masked_fill(torch.isneginf(lse), value)


_kept = Family(name="LSE")


MUTANTS = (
    _kept("lse-base-2", "B06", "base two", finish=_lse(lambda lse, problem: lse / math.log(2))),
    _kept("lse-mixed-bases", "B06", "maximum in base two, sum natural", close=_raw_maximum),
    _kept("lse-sum-alone", "B06", "without the maximum", close=_sum_alone),
    _kept("lse-maximum-alone", "B06", "without the sum", close=_maximum_alone),
    _kept(
        "lse-scaled",
        "B06",
        "times the softmax scale",
        finish=_lse(lambda lse, problem: lse * problem.scale),
    ),
    _kept(
        "lse-in-low",
        "B06",
        "rounded to the input type",
        finish=_lse(lambda lse, problem: lse.to(problem.dtype).float()),
    ),
    _kept(
        "lse-plus-inf",
        "B33",
        "+inf on rows without keys, -inf declared",
        finish=_lse(_empty_as(math.inf)),
    ),
    _kept(
        "lse-zero-on-empty",
        "B33",
        "0 on rows without keys, -inf declared",
        finish=_lse(_empty_as(0.0)),
    ),
    _kept("lse-strides", "B26", "heads and rows exchanged", finish=_lse(_wrong_strides)),
    _kept(
        "lse-of-next-batch",
        "B25",
        "the offset of the next sequence",
        finish=_lse(lambda lse, problem: lse.roll(1, 0)),
    ),
    _kept(
        "lse-of-first-tile", "B74", "every tile reads the first tile's", finish=_lse(_first_tile)
    ),
)
