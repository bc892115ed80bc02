"""Mutants of where things lie: heads, batches, strides, head dimensions, rows of the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants import Attention, Mutant, always
from pinproof_cell.mutants.emulation import HONEST, Call, Partial, changed


def _heads(index: Callable[[Tensor, int, int], Tensor], *names: str) -> Callable[[Call], Call]:
    """Return a step that lets query heads read other key heads; `index` gets heads, group, n."""

    def prepare(call: Call) -> Call:
        count = call.k.shape[1]
        chosen = index(torch.arange(call.q.shape[1]), call.group, count)
        return replace(call, **dict.fromkeys(names, chosen))

    return prepare


def _modulo(heads: Tensor, group: int, count: int) -> Tensor:
    return heads % count


def _first(heads: Tensor, group: int, count: int) -> Tensor:
    return torch.zeros_like(heads)


def _next(heads: Tensor, group: int, count: int) -> Tensor:
    return (heads + 1) // group % count


def _batch_zero(call: Call) -> Call:
    return replace(call, k=call.k[:1].expand_as(call.k), v=call.v[:1].expand_as(call.v))


def _rolled_rows(call: Call) -> Call:
    """Return the call with the rows of batch b moved by b modulo the group."""
    if call.group == 1:
        return call
    moved = [torch.roll(rows, b % call.group, 1) for b, rows in enumerate(call.q)]
    return replace(call, q=torch.stack(moved))


def _short_dot(call: Call) -> Call:
    """Return the call with q cut to whole vectors of eight."""
    q = call.q.clone()
    q[..., q.shape[-1] // 8 * 8 :] = 0
    return replace(call, q=q)


def _short_values(out: Tensor, lse: Tensor, call: Call) -> Partial:
    out = out.clone()
    out[..., out.shape[-1] // 32 * 32 :] = 0
    return out, lse


def _scale_of_padded(call: Call) -> Call:
    """Return the call with the scale of the head dimension that its tile is padded to."""
    dim = call.q.shape[3]
    padded = 1 << (dim - 1).bit_length()
    same = abs(call.scale - dim**-0.5) < 1e-9
    return replace(call, scale=padded**-0.5) if same else call


def _last_rows_unwritten(out: Tensor, lse: Tensor, call: Call) -> Partial:
    """Leave the rows behind the last full tile as they were: zero."""
    out = out.clone()
    out[:, :, call.queries // HONEST.block * HONEST.block :] = 0
    return out, lse


def _batches_unwritten(out: Tensor, lse: Tensor, call: Call) -> Partial:
    out = out.clone()
    out[1:] = torch.nan
    return out, lse


def _heads_swapped(out: Tensor, lse: Tensor, call: Call) -> Partial:
    """Write heads as (group, key head) where (key head, group) was meant."""
    heads = call.q.shape[1]
    order = torch.arange(heads).reshape(-1, call.group).T.flatten()
    return out[:, order], lse


def _contiguous(x: Tensor) -> Tensor:
    """Return what a kernel reads that takes `x` for contiguous."""
    strides, step = [], 1
    for size in reversed(x.shape):
        strides.append(step)
        step *= size
    return x.as_strided(x.shape, strides[::-1])


def _strides_ignored(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    return HONEST(*map(_contiguous, (q, k, v)), **rest)


def _like(x: Tensor, other: Tensor) -> Tensor:
    """Return what a kernel reads that takes the strides of `other` for those of `x`."""
    return x if x.shape != other.shape else x.as_strided(x.shape, other.stride())


def _k_strides_for_v(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    return HONEST(q, k, _like(v, k), **rest)


def _wrapped_offsets(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    """Read rows at offsets modulo 2^31 elements."""
    k, v = (x[:, torch.arange(x.shape[1]) * x.stride(1) % 2**31 // x.stride(1)] for x in (k, v))
    return HONEST(q, k, v, **rest)


def _layout(id: str, bug: str, stands_for: str, function: Attention) -> Mutant:  # noqa: A002
    return Mutant(id=id, family="layout", bug=bug, stands_for=stands_for, make=always(function))


MUTANTS = (
    _layout(
        "gqa-modulo",
        "B51",
        "key head h mod n for h // group",
        changed(prepare=_heads(_modulo, "k_head", "v_head")),
    ),
    _layout(
        "gqa-first-head",
        "B51",
        "every query head reads key head 0",
        changed(prepare=_heads(_first, "k_head", "v_head")),
    ),
    _layout(
        "gqa-values-modulo",
        "B51",
        "V alone by the wrong head",
        changed(prepare=_heads(_modulo, "v_head")),
    ),
    _layout(
        "gqa-shifted",
        "B02",
        "groups begin one head early",
        changed(prepare=_heads(_next, "k_head", "v_head")),
    ),
    _layout(
        "gqa-output-order", "B02", "heads written in packed order", changed(finish=_heads_swapped)
    ),
    _layout(
        "gqa-rolled-rows", "B04", "packed offset of q per batch", changed(prepare=_rolled_rows)
    ),
    _layout("batch-zero", "B36", "K and V of batch 0 for all", changed(prepare=_batch_zero)),
    _layout("head-tail-of-q", "B50", "q.k leaves out d mod 8", changed(prepare=_short_dot)),
    _layout(
        "head-tail-of-v", "B37", "columns behind d mod 32 unwritten", changed(finish=_short_values)
    ),
    _layout(
        "scale-of-padded-head", "", "1/sqrt of the padded d", changed(prepare=_scale_of_padded)
    ),
    _layout(
        "last-rows-unwritten", "B31", "rows of a partial tile", changed(finish=_last_rows_unwritten)
    ),
    _layout(
        "batches-unwritten",
        "B31",
        "rows of all sequences but one",
        changed(finish=_batches_unwritten),
    ),
    _layout("strides-ignored", "B62", "views read as if contiguous", _strides_ignored),
    _layout("v-by-strides-of-k", "B37", "V read with the strides of K", _k_strides_for_v),
    _layout("offsets-wrap", "B65", "32-bit offsets beyond 2^31", _wrapped_offsets),
)
