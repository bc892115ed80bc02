"""Mutants of attention sinks: one more logit of each row, which has no value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import Problem
from pinproof_cell.mutants.emulation.softmax import Partial, sunk
from pinproof_cell.mutants.mutant import Family

Sunk = Callable[[Tensor, Tensor, Problem], Partial]


def _other(edit: Callable[[Tensor, Problem], Tensor]) -> Sunk:
    """Return a step with other sinks."""

    def step(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
        if problem.sinks is None:
            return out, lse
        return sunk(out, lse, replace(problem, sinks=edit(problem.sinks, problem)))

    return step


def _ignored(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    return out, lse


def _output_alone(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    return sunk(out, lse, problem)[0], lse


def _lse_alone(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    return out, sunk(out, lse, problem)[1]


def _with_value(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Give the sink the value of the first key."""
    found, whole = sunk(out, lse, problem)
    if problem.sinks is None or not problem.keys:
        return found, whole
    share = 1 - torch.exp(lse - whole)
    return found + share[..., None] * problem.v[:, problem.v_head, :1], whole


def _added(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Add the sink to the output."""
    if problem.sinks is None:
        return out, lse
    return out + problem.sinks[:, None, None], lse


def _per_split(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Count the sink once for every split."""
    for _ in range(max(problem.splits, 1)):
        out, lse = sunk(out, lse, problem)
    return out, lse


def _twice(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    return sunk(*sunk(out, lse, problem), problem)


def _by_key_head(sinks: Tensor, problem: Problem) -> Tensor:
    return sinks[problem.k_head]


_sink = Family(name="sinks", needs=("sinks",))

MUTANTS = (
    _sink("sinks-ignored", "B80", "sinks are silently ignored", sunk=_ignored),
    _sink("sinks-twice", "", "every sink counts twice", sunk=_twice),
    _sink(
        "sinks-per-split", "B32", "a sink counts in every split", sunk=_per_split, needs=("splits",)
    ),
    _sink("sinks-in-output-alone", "", "the LSE leaves the sink out", sunk=_output_alone),
    _sink("sinks-in-lse-alone", "", "the output is not normalised by it", sunk=_lse_alone),
    _sink("sinks-with-value", "", "the sink has the first key's value", sunk=_with_value),
    _sink("sinks-added", "", "the sink is added to the output", sunk=_added),
    _sink(
        "sinks-of-next-head", "B51", "the neighbour's sink", sunk=_other(lambda s, p: s.roll(-1))
    ),
    _sink(
        "sinks-of-first-head",
        "B51",
        "head 0's sink for all",
        sunk=_other(lambda s, p: s[:1].expand_as(s)),
    ),
    _sink("sinks-by-key-head", "B51", "indexed by the key head", sunk=_other(_by_key_head)),
    _sink("sinks-scaled", "B45", "times the softmax scale", sunk=_other(lambda s, p: s * p.scale)),
    _sink(
        "sinks-in-base-2",
        "B06",
        "taken for a power of two",
        sunk=_other(lambda s, p: s * math.log(2)),
    ),
)
