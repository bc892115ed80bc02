"""Mutants of the backward pass; their forward is honest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.mutants.emulation import HONEST, Backward, Problem, changed
from pinproof_cell.mutants.emulation.gradient import (
    Gradients,
    delta,
    grouped,
    of_keys,
    of_queries,
)
from pinproof_cell.mutants.emulation.softmax import dropped, products, rounded, scores, seen
from pinproof_cell.mutants.heads import unwritten
from pinproof_cell.mutants.mutant import Family, Mutant
from pinproof_cell.mutants.numerics import float32_plain
from pinproof_cell.mutants.strides import contiguous, reread

BLOCK = HONEST.block


def _no_window(problem: Problem) -> Problem:
    return replace(problem, left=-1, right=0 if problem.causal else -1)


def _default_scale(problem: Problem) -> Problem:
    return replace(problem, scale=problem.q.shape[3] ** -0.5)


def _no_softcap_in_window(problem: Problem) -> Problem:
    return problem if problem.window == (-1, -1) else replace(problem, softcap=0.0)


def _top_left(problem: Problem) -> Problem:
    return replace(problem, offset=0) if problem.causal else problem


def _slopes_in_bf16(problem: Problem) -> Problem:
    slopes = problem.slopes
    return problem if slopes is None else replace(problem, slopes=slopes.bfloat16().float())


def _without_sinks(lse: Tensor, problem: Problem) -> Tensor:
    """Return the log-sum-exp of the keys alone."""
    logits = scores(problem).masked_fill(~seen(problem), -torch.inf)
    return lse if problem.sinks is None or not problem.keys else torch.logsumexp(logits, -1)


def _first_tile(lse: Tensor, problem: Problem) -> Tensor:
    return lse[:, :, torch.arange(problem.queries) % BLOCK]


def _open_left(problem: Problem) -> Problem:
    """Return the window with a left limit of half the keys where it has none."""
    return replace(problem, left=problem.keys // 2) if problem.left < 0 < problem.right else problem


def _open_right(problem: Problem) -> Problem:
    return replace(problem, right=0) if problem.right < 0 <= problem.left else problem


def _low(lse: Tensor, problem: Problem) -> Tensor:
    return lse.to(problem.dtype).float()


def _transposed(lse: Tensor, problem: Problem) -> Tensor:
    return lse.transpose(1, 2).reshape(lse.shape)


def _no_delta(out: Tensor, dout: Tensor) -> Tensor:
    return torch.zeros_like(delta(out, dout))


def _tiled_delta(out: Tensor, dout: Tensor) -> Tensor:
    """Return the delta of the first tile for every tile."""
    return delta(out, dout)[:, :, torch.arange(out.shape[2]) % BLOCK]


def _low_delta(out: Tensor, dout: Tensor) -> Tensor:
    return rounded(delta(out, dout), torch.bfloat16)


def _first_columns(out: Tensor, dout: Tensor) -> Tensor:
    """Return the delta of the first 64 columns."""
    return delta(out[..., :64], dout[..., :64])


def _bent(edit: Callable[[Tensor], Tensor]) -> Callable[[Problem], Tensor | None]:
    """Return a derivative of the softcap that is another function of its tanh."""

    def step(problem: Problem) -> Tensor | None:
        if not problem.softcap:
            return None
        return edit(torch.tanh(products(problem) * problem.scale / problem.softcap))

    return step


def _quantized(dtype: torch.dtype) -> Callable[[Tensor, torch.dtype], Tensor]:
    return lambda x, _: rounded(x, dtype)


def _times(share: Callable[..., Tensor], factor: Callable[[Problem], float]) -> Any:
    """Return a step of dQ or dK times a factor."""
    return lambda ds, problem: share(ds, problem) * factor(problem)


def _tile_twice(ds: Tensor, problem: Problem) -> Tensor:
    twice = ds.clone()
    twice[..., :BLOCK] *= 2
    return of_queries(twice, problem)


def _last_tile_lost(ds: Tensor, problem: Problem) -> Tensor:
    """Leave the last tile of keys out of dQ, where there are two."""
    whole = max(problem.keys - 1, 0) // BLOCK * BLOCK
    kept = torch.arange(problem.keys) < (whole or problem.keys)
    return of_queries(ds * kept, problem)


def _rows_lost(ds: Tensor, problem: Problem) -> Tensor:
    """Leave the rows of a last partial tile out of dK, where there are two."""
    whole = problem.queries // BLOCK * BLOCK
    kept = torch.arange(problem.queries)[:, None] < (whole or problem.queries)
    return of_keys(ds * kept, problem)


def _one_of_group(which: int) -> Callable[[Tensor, Tensor, int], Tensor]:
    def step(shares: Tensor, heads: Tensor, count: int) -> Tensor:
        return shares.unflatten(1, (count, -1))[:, :, which]

    return step


def _modulo(shares: Tensor, heads: Tensor, count: int) -> Tensor:
    return grouped(shares, torch.arange(len(heads)) % count, count)


def _mean(shares: Tensor, heads: Tensor, count: int) -> Tensor:
    return grouped(shares, heads, count) * count / shares.shape[1]


def _sum_in_low(shares: Tensor, heads: Tensor, count: int) -> Tensor:
    """Sum the heads of a group in bf16, one after the other."""
    each = shares.unflatten(1, (count, -1))
    whole = each[:, :, 0]
    for share in each.unbind(2)[1:]:
        whole = rounded(whole + share, torch.bfloat16)
    return whole


def _redrawn(problem: Problem) -> Tensor | None:
    """Draw a mask of its own."""
    if problem.dropout:
        torch.rand(1)
    return dropped(problem)


def _unscaled(problem: Problem) -> Tensor | None:
    found = dropped(problem)
    return None if found is None else found * (1 - problem.dropout)


def _overflows(where: Callable[[int], bool]) -> Callable[[Gradients, Problem, Tensor], Gradients]:
    """Return a step that adds the rows behind the last, where `where` holds for their number.

    Their dO is 0, and P = exp(0 - LSE) with the last row's: 0 times what overflows below -88.7.
    """

    def step(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
        dq, dk, dv = gradients
        if not where(problem.queries):
            return gradients
        shares = (torch.exp(-lse[:, :, -1]) * 0)[..., None, None]
        nothing = grouped(shares, problem.k_head, problem.k.shape[1])
        return dq, dk + nothing, dv + nothing

    return step


def _stale_accumulator(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
    """Begin dQ of all sequences but the first with what the accumulator held before."""
    dq, dk, dv = gradients
    dq = dq.clone()
    dq[0 if problem.sequence else 1 :] += 1.0
    return dq, dk, dv


def _unlaunched(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
    """Return what nobody wrote, for wide heads with dropout."""
    if problem.q.shape[3] <= 192 or not problem.dropout:
        return gradients
    dq, dk, dv = (torch.full_like(x, torch.nan) for x in gradients)
    return dq, dk, dv


def _garbage_of_empty(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
    """Leave in dK what K was, for a sequence without queries."""
    dq, dk, dv = gradients
    return (dq, dk, dv) if problem.queries else (dq, problem.k, problem.v)


def _garbage_of_no_keys(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
    """Leave in dQ what Q was, where there are no keys."""
    dq, dk, dv = gradients
    return (dq, dk, dv) if problem.keys else (problem.q, dk, dv)


def _unwritten_from(
    name: str, axis: int, count: int
) -> Callable[[Gradients, Problem, Tensor], Gradients]:
    """Return a step that leaves the gradient called `name` 0 from place `count` of an axis on."""
    names = ("dq", "dk", "dv")

    def step(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
        dq, dk, dv = (
            unwritten(x, axis, count) if each == name else x
            for each, x in zip(names, gradients, strict=True)
        )
        return dq, dk, dv

    return step


def _tail_unwritten(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
    """Leave the keys of a last partial tile unwritten."""
    whole = problem.keys // BLOCK * BLOCK
    written = torch.arange(problem.keys)[:, None] < whole
    dq, dk, dv = gradients
    return dq, dk.where(written, torch.nan), dv.where(written, torch.nan)


def _swapped(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
    """Exchange dK and dV, where they are of one shape."""
    dq, dk, dv = gradients
    return (dq, dv, dk) if dk.shape == dv.shape else gradients


def _strides_ignored(call: Call) -> Call:
    q, k, v = (reread(x, contiguous(x)) for x in (call.q, call.k, call.v))
    return replace(call, q=q, k=k, v=v)


_family = Family(name="gradients", needs=("backward",))


def _gradient(id: str, bug: str, stands_for: str, needs: str = "", **steps: Any) -> Mutant:  # noqa: A002
    kernel = changed(backward_steps=Backward(**steps))
    return _family(id, bug, stands_for, function=kernel, needs=tuple(needs.split()))


MUTANTS = (
    _gradient("grad-window-ignored", "B14", "no window", "window", prepare=_no_window),
    _gradient("grad-window-open-left", "B14", "keys far left", "window", prepare=_open_left),
    _gradient("grad-window-open-right", "B14", "keys ahead", "window", prepare=_open_right),
    _gradient("grad-top-left", "B12", "causal from the top-left corner", prepare=_top_left),
    _gradient(
        "grad-causal-ignored",
        "B14",
        "no causal mask",
        prepare=lambda problem: replace(problem, right=problem.window[1]),
    ),
    _gradient(
        "grad-alibi-ignored",
        "B80",
        "no slopes",
        "alibi",
        prepare=lambda problem: replace(problem, slopes=None),
    ),
    _gradient("grad-alibi-in-bf16", "B54", "slopes cast to bf16", "alibi", prepare=_slopes_in_bf16),
    _gradient(
        "grad-softcap-ignored",
        "B56",
        "P again without softcap",
        "softcap",
        prepare=lambda problem: replace(problem, softcap=0.0),
    ),
    _gradient(
        "grad-softcap-not-derived",
        "B56",
        "the derivative is left out",
        "softcap",
        bend=lambda problem: None,
    ),
    _gradient(
        "grad-softcap-unsquared",
        "B56",
        "1 - tanh for 1 - tanh^2",
        "softcap",
        bend=_bent(lambda x: 1 - x),
    ),
    _gradient(
        "grad-softcap-of-capped",
        "B56",
        "the derivative at the capped score",
        "softcap",
        bend=_bent(lambda x: 1 - torch.tanh(x).square()),
    ),
    _gradient("grad-scale-ignored", "B80", "the default scale", prepare=_default_scale),
    _gradient(
        "grad-softcap-lost-in-window",
        "B80",
        "no softcap where there is a window",
        "softcap window",
        prepare=_no_softcap_in_window,
    ),
    _gradient(
        "grad-float32-arguments-ignored",
        "B80",
        "no scale, softcap and slopes in float32",
        "fp32",
        prepare=float32_plain,
    ),
    _gradient("grad-sinks-ignored", "B80", "P of the keys alone", "sinks", stored=_without_sinks),
    _gradient("grad-lse-of-first-tile", "B74", "every tile reads the first", stored=_first_tile),
    _gradient("grad-lse-in-low", "B06", "the LSE in the input type", stored=_low),
    _gradient("grad-lse-strides", "B26", "heads and rows exchanged", stored=_transposed),
    _gradient("grad-lse-base-2", "B06", "base two", stored=lambda lse, problem: lse / math.log(2)),
    _gradient("grad-no-delta", "", "delta is left out", delta=_no_delta),
    _gradient("grad-delta-of-first-tile", "B74", "every tile reads the first", delta=_tiled_delta),
    _gradient("grad-delta-in-bf16", "B53", "delta in bf16", delta=_low_delta),
    _gradient("grad-delta-of-64-columns", "", "delta of 64 columns of V", delta=_first_columns),
    _gradient("grad-p-in-fp8", "B46", "P and dS in e4m3", quantize=_quantized(torch.float8_e4m3fn)),
    _gradient(
        "grad-ds-in-bf16", "B53", "P and dS in bf16 for fp16", quantize=_quantized(torch.bfloat16)
    ),
    _gradient(
        "grad-ds-in-fp16", "B53", "P and dS in fp16 for bf16", quantize=_quantized(torch.float16)
    ),
    _gradient(
        "grad-dq-scale-missing",
        "B45",
        "dQ without the scale",
        of_queries=_times(of_queries, lambda problem: 1 / problem.scale),
    ),
    _gradient(
        "grad-dk-scale-twice",
        "B45",
        "the scale twice in dK",
        of_keys=_times(of_keys, lambda problem: problem.scale),
    ),
    _gradient(
        "grad-dq-tile-twice", "B69", "a tile of keys adds to dQ twice", of_queries=_tile_twice
    ),
    _gradient(
        "grad-dq-tile-lost", "B69", "the last tile of keys is lost", of_queries=_last_tile_lost
    ),
    _gradient("grad-dk-rows-lost", "B50", "rows of a partial tile are lost", of_keys=_rows_lost),
    _gradient(
        "grad-group-last-head", "B69", "the last head of a group", "gqa", grouped=_one_of_group(-1)
    ),
    _gradient(
        "grad-group-first-head", "B69", "the first head of a group", "gqa", grouped=_one_of_group(0)
    ),
    _gradient("grad-group-modulo", "B51", "key head h mod n", "gqa", grouped=_modulo),
    _gradient("grad-group-mean", "", "the mean of a group", "gqa", grouped=_mean),
    _gradient("grad-group-in-bf16", "B53", "a group summed in bf16", "gqa", grouped=_sum_in_low),
    _gradient("grad-dropout-redrawn", "B57", "another mask", "dropout", dropped=_redrawn),
    _gradient("grad-dropout-unscaled", "B57", "kept keys not scaled", "dropout", dropped=_unscaled),
    _gradient("grad-dropout-ignored", "B57", "no mask", "dropout", dropped=lambda problem: None),
    _gradient(
        "grad-dropout-unlaunched",
        "",
        "no kernel for wide heads with dropout",
        "dropout wide-head",
        finish=_unlaunched,
    ),
    _gradient(
        "grad-dout-strides",
        "B58",
        "dO read as if contiguous",
        read=lambda x: reread(x, contiguous(x)),
    ),
    _gradient(
        "grad-strides-ignored", "B61", "q, k and v read as if contiguous", ask=_strides_ignored
    ),
    _gradient(
        "grad-overflow-at-64",
        "B48",
        "exp(-LSE) in a tile of 128 of which 64 rows are there",
        finish=_overflows(lambda queries: queries % 128 == 64),
    ),
    _gradient(
        "grad-overflow-of-one",
        "B49",
        "exp(-LSE) where there is a single query",
        finish=_overflows(lambda queries: queries == 1),
    ),
    _gradient(
        "grad-overflow-in-tail",
        "B50",
        "exp(-LSE) in rows behind the last",
        finish=_overflows(lambda queries: queries % 8 != 0),
    ),
    _gradient("grad-tail-unwritten", "B50", "keys of a partial tile", finish=_tail_unwritten),
    _gradient(
        "grad-accumulator-stale", "B42", "dQ is not cleared for b > 0", finish=_stale_accumulator
    ),
    _gradient(
        "grad-of-no-queries",
        "B03",
        "a sequence without queries leaves K in dK",
        "varlen empty-sequences",
        finish=_garbage_of_empty,
    ),
    _gradient(
        "grad-of-no-queries-dense",
        "B03",
        "a batch without queries leaves K in dK",
        "no-queries",
        finish=_garbage_of_empty,
    ),
    _gradient(
        "grad-of-no-keys",
        "B03",
        "a batch without keys leaves Q in dQ",
        "no-keys",
        finish=_garbage_of_no_keys,
    ),
    _gradient(
        "grad-keys-from-2048-lost",
        "",
        "dK of key 2048 and on",
        finish=_unwritten_from("dk", 2, 2048),
    ),
    _gradient(
        "grad-queries-from-2048-lost",
        "",
        "dQ of row 2048 and on",
        finish=_unwritten_from("dq", 2, 2048),
    ),
    _gradient(
        "grad-heads-from-16-lost", "", "dV of head 16 and on", finish=_unwritten_from("dv", 1, 16)
    ),
    _gradient(
        "grad-batches-from-8-lost",
        "",
        "dQ of element 8 and on",
        finish=_unwritten_from("dq", 0, 8),
    ),
    _gradient("grad-dk-is-dv", "", "dK and dV exchanged", finish=_swapped),
)
