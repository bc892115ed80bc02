"""Identities of memory: where tensors lie, and what lies beside them, does not matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.judge.forward import Judgement
from pinproof_cell.suite import inputs
from pinproof_cell.suite.identities.compare import Bench

#: The width of a band of NaN, in numbers: whole cache lines, so that tensors stay aligned.
BAND = 4096


def views(bench: Bench) -> Iterator[Judgement]:
    """P3: strided, expanded and far tensors give what their contiguous copies give.

    Within the rounding of both, since a kernel may take another path.
    """
    call = bench.draw()
    copies = {name: getattr(call, name).contiguous() for name in ("q", "k", "v")}
    words = f"{bench.case.memory} tensors and their contiguous copies"
    yield bench.agree(bench.ask(call), bench.ask(replace(call, **copies)), words)


def beyond(bench: Bench) -> Iterator[Judgement]:
    """P7: what a page or a cache holds behind its used length does not matter.

    The same: 1e30 there leaves the answer that the numbers of other sequences gave.
    """
    yield from _poisoned(bench, 1e30)


def beyond_nan(bench: Bench) -> Iterator[Judgement]:
    """P7: nor does NaN there, which a weight of 0 does not hide: the same."""
    yield from _poisoned(bench, math.nan)


def _poisoned(bench: Bench, poison: float) -> Iterator[Judgement]:
    trial = bench.trial
    first = bench.ask(bench.draw())
    call = inputs.generate(bench.case, trial.seed, trial.device, beyond=poison)
    words = f"with {poison:g} behind the used length, and without"
    yield bench.same(bench.ask(call), first, words)


def outside_window(bench: Bench) -> Iterator[Judgement]:
    """P7: what stands far outside of the window of every row is never read.

    A server takes such pages back, and they may hold anything. The same; the 256 keys before the
    window are left alone, since kernels read whole tiles.
    """
    call = bench.draw()
    first = bench.ask(call)
    assert call.layout is not None  # noqa: S101  (the cases of this identity are paged)
    assert call.layout.block_table is not None  # noqa: S101
    k, v = call.k.clone(), call.v.clone()
    for index, (queries, keys) in enumerate(bench.case.sequences):
        pages = max(keys - queries - call.window_size[0] - 256, 0) // call.k.shape[1]
        gone = call.layout.block_table[index, :pages].long()
        k[gone], v[gone] = math.nan, math.nan
    # The oracle multiplies hidden values by 0, so the truth is that without NaN.
    second = replace(bench.ask(replace(call, k=k, v=v)), truth=first.truth)
    yield bench.same(second, first, "with NaN outside of the window, and without")


def guard_bands(bench: Bench) -> Iterator[Judgement]:
    """P15: NaN before and behind q, k and v is never read.

    The same: so are shapes, strides and alignment.
    """
    call = bench.draw()
    first = bench.ask(call)
    guarded = {name: _between(getattr(call, name)) for name in ("q", "k", "v")}
    second = bench.ask(replace(call, **guarded))
    yield bench.same(second, first, "with NaN around q, k and v, and without")


def guard_rows(bench: Bench) -> Iterator[Judgement]:
    """P15: NaN before the first and behind the last row of each sequence is never read.

    The tensors are slices of longer ones. Within the rounding of both: strides are others.
    """
    call = bench.draw()
    guarded = {name: _sliced(getattr(call, name)) for name in ("q", "k", "v")}
    words = "slices of longer tensors full of NaN, and tensors of their own"
    yield bench.agree(bench.ask(replace(call, **guarded)), bench.ask(call), words)


def _between(x: Tensor) -> Tensor:
    """Return `x` between two bands of NaN, contiguous as before."""
    memory = torch.full((x.numel() + 2 * BAND,), math.nan, dtype=x.dtype, device=x.device)
    return memory[BAND : BAND + x.numel()].view(x.shape).copy_(x)


def _sliced(x: Tensor) -> Tensor:
    """Return `x` as a slice of rows that begin and end with NaN."""
    batch, length, *rest = x.shape
    memory = torch.full((batch, length + 256, *rest), math.nan, dtype=x.dtype, device=x.device)
    return memory[:, 128 : 128 + length].copy_(x)
