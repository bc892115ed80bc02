"""Mutants of heads and batches: who reads whose keys, how wide a head is, what is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST, Problem
from pinproof_cell.mutants.emulation.softmax import Partial
from pinproof_cell.mutants.mutant import Family


def _heads(
    index: Callable[[Tensor, int, int], Tensor], *names: str
) -> Callable[[Problem], Problem]:
    """Return a step that lets query heads read other key heads; `index` gets heads, group, n."""

    def prepare(problem: Problem) -> Problem:
        count = problem.k.shape[1]
        chosen = index(torch.arange(problem.q.shape[1]), problem.group, count)
        return replace(problem, **dict.fromkeys(names, chosen))

    return prepare


def _modulo(heads: Tensor, group: int, count: int) -> Tensor:
    return heads % count


def _first(heads: Tensor, group: int, count: int) -> Tensor:
    return torch.zeros_like(heads)


def _next(heads: Tensor, group: int, count: int) -> Tensor:
    return (heads + 1) // group % count


def _power_of_two(heads: Tensor, group: int, count: int) -> Tensor:
    """Return the key heads of a kernel that shifts where it has to divide."""
    return heads >> (group - 1).bit_length()


def _sixteen_rows(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Leave rows unwritten where a tile of 16 rows is not a whole number of groups."""
    whole = 16 // problem.group
    if 16 % problem.group == 0 or not whole:
        return out, lse
    return unwritten(out, 2, problem.queries // whole * whole), lse


def _batch_zero(problem: Problem) -> Problem:
    return replace(
        problem, k=problem.k[:1].expand_as(problem.k), v=problem.v[:1].expand_as(problem.v)
    )


def _rolled_rows(problem: Problem) -> Problem:
    """Return the problem with the rows of batch b moved by b modulo the group."""
    if problem.group == 1:
        return problem
    numbers = range(problem.sequence, problem.sequence + problem.q.shape[0])
    moved = [torch.roll(x, b % problem.group, 1) for b, x in zip(numbers, problem.q, strict=True)]
    return replace(problem, q=torch.stack(moved))


def _short_dot(problem: Problem) -> Problem:
    """Return the problem with q cut to whole vectors of eight."""
    q = problem.q.clone()
    q[..., q.shape[-1] // 8 * 8 :] = 0
    return replace(problem, q=q)


def _first_columns(problem: Problem) -> Problem:
    return replace(problem, q=problem.q[..., :128], k=problem.k[..., :128])


def _short_between(below: int, above: int) -> Callable[[Problem], Problem]:
    """Return a step that loses the last eight columns of heads padded to `above`."""

    def prepare(problem: Problem) -> Problem:
        head_dim = problem.q.shape[-1]
        if head_dim % 8 or not below < head_dim < above:
            return problem
        return replace(problem, q=unwritten(problem.q, 3, head_dim - 8))

    return prepare


def _short_values(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    out = out.clone()
    out[..., out.shape[-1] // 32 * 32 :] = 0
    return out, lse


def _scale_of_padded(problem: Problem) -> Problem:
    """Return the problem with the scale of the head dimension that its tile is padded to."""
    return _rescaled(problem, 1 << (problem.q.shape[3] - 1).bit_length())


def _scale_of_v(problem: Problem) -> Problem:
    return _rescaled(problem, problem.v.shape[3])


def _rescaled(problem: Problem, dim: int) -> Problem:
    """Return the problem with the default scale of another head dimension, if it has its own."""
    own = abs(problem.scale - problem.q.shape[3] ** -0.5) < 1e-9
    return replace(problem, scale=dim**-0.5) if own else problem


def _last_rows_unwritten(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Leave the rows behind the last full tile as they were: zero."""
    out = out.clone()
    out[:, :, problem.queries // HONEST.block * HONEST.block :] = 0
    return out, lse


def _batches_unwritten(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    out = out.clone()
    out[0 if problem.sequence else 1 :] = torch.nan
    return out, lse


def unwritten(x: Tensor, axis: int, count: int) -> Tensor:
    """Return `x` with 0 along `axis` from place `count` on."""
    found = x.clone()
    found.narrow(axis, min(count, x.shape[axis]), max(x.shape[axis] - count, 0)).zero_()
    return found


def _unwritten_from(axis: int, count: int) -> Callable[[Tensor, Tensor, Problem], Partial]:
    """Return a step that leaves an axis of the output 0 from place `count` on."""
    return lambda out, lse, problem: (unwritten(out, axis, count), lse)


def _heads_swapped(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Write heads as (group, key head) where (key head, group) was meant."""
    heads = problem.q.shape[1]
    order = torch.arange(heads).reshape(-1, problem.group).T.flatten()
    return out[:, order], lse


_head = Family(name="heads")

MUTANTS = (
    _head(
        "gqa-modulo",
        "B51",
        "key head h mod n for h // group",
        prepare=_heads(_modulo, "k_head", "v_head"),
        needs=("gqa",),
    ),
    _head(
        "gqa-first-head",
        "B51",
        "every query head reads key head 0",
        prepare=_heads(_first, "k_head", "v_head"),
    ),
    _head(
        "gqa-values-modulo",
        "B51",
        "V alone by the wrong head",
        prepare=_heads(_modulo, "v_head"),
        needs=("gqa",),
    ),
    _head(
        "gqa-shifted",
        "B02",
        "groups begin one head early",
        prepare=_heads(_next, "k_head", "v_head"),
    ),
    _head(
        "gqa-output-order",
        "B02",
        "heads written in packed order",
        finish=_heads_swapped,
        needs=("gqa",),
    ),
    _head(
        "gqa-rolled-rows",
        "B04",
        "packed offset of q per batch",
        prepare=_rolled_rows,
        needs=("gqa",),
    ),
    _head(
        "gqa-power-of-two",
        "B51",
        "a shift for the division by the group",
        prepare=_heads(_power_of_two, "k_head", "v_head"),
        needs=("gqa",),
    ),
    _head(
        "gqa-rows-of-sixteen",
        "B02",
        "packed rows of groups that 16 is no multiple of",
        finish=_sixteen_rows,
        needs=("gqa",),
    ),
    _head("batch-zero", "B36", "K and V of batch 0 for all", prepare=_batch_zero),
    _head("head-tail-of-q", "B50", "q.k leaves out d mod 8", prepare=_short_dot),
    _head("head-tail-of-v", "B37", "columns behind d mod 32 unwritten", finish=_short_values),
    _head("head-beyond-128", "", "columns of q behind 128 left out", prepare=_first_columns),
    *(
        _head(
            f"head-padded-to-{above}",
            "B37",
            f"columns of heads between {below} and {above}",
            prepare=_short_between(below, above),
        )
        for below, above in ((40, 64), (104, 128), (192, 256))
    ),
    _head("scale-of-padded-head", "", "1/sqrt of the padded d", prepare=_scale_of_padded),
    _head("scale-of-value-head", "B37", "1/sqrt of the head dimension of V", prepare=_scale_of_v),
    _head("last-rows-unwritten", "B31", "rows of a partial tile", finish=_last_rows_unwritten),
    _head("queries-from-512-unwritten", "", "rows behind 512", finish=_unwritten_from(2, 512)),
    _head("queries-from-2048-unwritten", "", "rows behind 2048", finish=_unwritten_from(2, 2048)),
    _head("heads-from-8-unwritten", "", "heads behind 8", finish=_unwritten_from(1, 8)),
    _head("heads-from-16-unwritten", "", "heads behind 16", finish=_unwritten_from(1, 16)),
    _head("batches-from-4-unwritten", "", "elements behind 4", finish=_unwritten_from(0, 4)),
    _head("batches-from-8-unwritten", "", "elements behind 8", finish=_unwritten_from(0, 8)),
    _head("batches-unwritten", "B31", "rows of all sequences but one", finish=_batches_unwritten),
)
