"""Mutants of the arithmetic: the online softmax, scales, softcap, ALiBi, rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants import Attention, Mutant, always
from pinproof_cell.mutants.emulation import (
    Call,
    Partial,
    State,
    Tile,
    anchored,
    biased,
    capped,
    changed,
    fold,
    products,
    rounded,
    scores,
)


def _broken_fold(*, out: bool, total: bool) -> Callable[[State, Tile], State]:
    """Return a fold that rescales only what it is told to when the maximum grows."""

    def step(state: State, tile: Tile) -> State:
        maximum = torch.maximum(state.maximum, tile.scores.amax(-1))
        anchor = anchored(maximum)
        p = torch.exp(tile.scores - anchor[..., None])
        shrink = torch.exp(state.maximum - anchor)
        one = torch.ones_like(shrink)
        added = rounded(p, tile.dtype) @ tile.values
        return State(
            state.out * (shrink if out else one)[..., None] + added,
            maximum,
            state.total * (shrink if total else one) + p.sum(-1),
        )

    return step


def _reset(state: State, tile: Tile) -> State:
    """Fold every tile as if it were the first one of its row."""
    empty = State(
        state.out, torch.full_like(state.maximum, -torch.inf), torch.zeros_like(state.total)
    )
    return fold(empty, tile)


def _first_twice(state: State, tile: Tile) -> State:
    state = fold(state, tile)
    return fold(state, tile) if tile.number == 0 else state


def _low_accumulator(state: State, tile: Tile) -> State:
    state = fold(state, tile)
    return replace(state, out=rounded(state.out, tile.dtype))


def _power_of_two(logits: Tensor, anchor: Tensor) -> Tensor:
    return torch.exp2(logits - anchor[..., None])


def _coarse_exp(logits: Tensor, anchor: Tensor) -> Tensor:
    """Return the exponential by a polynomial of degree two: an error of 2e-3."""
    x = ((logits - anchor[..., None]) * 1.4426950408889634).clamp_min(-126)
    whole = x.floor()
    part = x - whole
    value = torch.exp2(whole) * (1 + part * (0.6602 + part * 0.3398))
    return value.masked_fill(torch.isneginf(logits), 0.0)


def _truncated(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast towards zero."""
    low = x.to(dtype)
    # A neighbour towards zero is one less as an integer, for numbers of either sign.
    over = (low.float().abs() > x.abs()).to(torch.int16)
    return (low.view(torch.int16) - over).view(dtype)


def _truncated_p(p: Tensor, dtype: torch.dtype) -> Tensor:
    return _truncated(p, dtype).float()


def _p_in(dtype: torch.dtype) -> Callable[[Tensor, torch.dtype], Tensor]:
    return lambda p, _: p.to(dtype).float()


def _p_saturated(p: Tensor, dtype: torch.dtype) -> Tensor:
    """Round P, saturated at 448 after an offset of 2^9: FP8's habit."""
    return rounded((p * 512).clamp_max(448.0) / 512, dtype)


def _bits(call: Call) -> Tensor:
    """Multiply the bit patterns of the inputs, as Triton's interpreter does with bf16."""
    if call.dtype != torch.bfloat16:
        return scores(call)
    q, k = ((x.bfloat16().view(torch.int16).float() / 2**14) for x in (call.q, call.k))
    return scores(replace(call, q=q, k=k))


def _low_scores(call: Call) -> Tensor:
    return biased(capped(rounded(products(call), call.dtype) * call.scale, call), call)


def _cap_before_scale(call: Call) -> Tensor:
    return biased(capped(products(call), call) * call.scale, call)


def _cap_undivided(call: Call) -> Tensor:
    logits = products(call) * call.scale
    return biased(call.softcap * torch.tanh(logits) if call.softcap else logits, call)


def _cap_after_alibi(call: Call) -> Tensor:
    return capped(biased(products(call) * call.scale, call), call)


def _slopes(edit: Callable[[Tensor], Tensor]) -> Callable[[Call], Call]:
    def prepare(call: Call) -> Call:
        return call if call.slopes is None else replace(call, slopes=edit(call.slopes))

    return prepare


def _bias(distance: Callable[[Call], Tensor]) -> Callable[[Call], Tensor]:
    """Return scores with ALiBi over another measure of distance."""

    def logits(call: Call) -> Tensor:
        plain = scores(replace(call, slopes=None))
        if call.slopes is None:
            return plain
        return plain - call.slopes[:, :, None, None] * distance(call)

    return logits


def _unshifted(call: Call) -> Tensor:
    return (torch.arange(call.queries)[:, None] - torch.arange(call.keys)).abs()


def _scale(edit: Callable[[Call], float]) -> Callable[[Call], Call]:
    return lambda call: replace(call, scale=edit(call))


def _times(factor: float) -> Callable[[Tensor, Tensor, Call], Partial]:
    return lambda out, lse, call: (out * factor, lse)


def _first_softcap() -> Attention:
    """Return a kernel that keeps the first softcap that it was compiled for."""
    first: list[float] = []

    def prepare(call: Call) -> Call:
        first.append(call.softcap)
        return replace(call, softcap=first[0])

    return changed(prepare=prepare)


def _first_scale() -> Attention:
    """Return a kernel that keeps the first scale of a head dimension."""
    known: dict[int, float] = {}

    def prepare(call: Call) -> Call:
        return replace(call, scale=known.setdefault(call.q.shape[3], call.scale))

    return changed(prepare=prepare)


def _numeric(id: str, bug: str, stands_for: str, **steps: Any) -> Mutant:  # noqa: A002
    return Mutant(
        id=id, family="numerics", bug=bug, stands_for=stands_for, make=always(changed(**steps))
    )


MUTANTS = (
    _numeric(
        "no-rescale-of-output",
        "B01",
        "the output is not rescaled",
        fold=_broken_fold(out=False, total=True),
    ),
    _numeric(
        "no-rescale-of-sum",
        "B01",
        "the sum is not rescaled",
        fold=_broken_fold(out=True, total=False),
    ),
    _numeric("reset-per-tile", "B01", "maximum and sum reset on every tile", fold=_reset),
    _numeric("first-tile-twice", "B69", "one tile is visited twice", fold=_first_twice),
    _numeric("output-accumulates-low", "", "16-bit accumulator", fold=_low_accumulator),
    _numeric(
        "exp2-of-natural", "", "exp2 without log2(e)", fold=partial(fold, weigh=_power_of_two)
    ),
    _numeric("coarse-exp", "", "exponential of degree two", fold=partial(fold, weigh=_coarse_exp)),
    _numeric(
        "p-in-fp8", "B46", "P in e4m3", fold=partial(fold, quantize=_p_in(torch.float8_e4m3fn))
    ),
    _numeric(
        "p-in-bf16", "B53", "P in bf16 for fp16", fold=partial(fold, quantize=_p_in(torch.bfloat16))
    ),
    _numeric(
        "p-saturated", "B46", "P clamped after an offset", fold=partial(fold, quantize=_p_saturated)
    ),
    _numeric(
        "p-truncated", "B77", "P cast towards zero", fold=partial(fold, quantize=_truncated_p)
    ),
    _numeric("output-truncated", "B77", "the output cast towards zero", cast=_truncated),
    _numeric("bf16-bit-patterns", "B77", "bf16 multiplied as integers", scores=_bits),
    _numeric("scores-in-low", "", "q.k rounded to the input type", scores=_low_scores),
    _numeric("scale-missing", "B45", "no softmax scale", prepare=_scale(lambda call: 1.0)),
    _numeric(
        "scale-twice", "B45", "the scale applied twice", prepare=_scale(lambda call: call.scale**2)
    ),
    _numeric(
        "scale-ignored",
        "B80",
        "softmax_scale is silently ignored",
        prepare=_scale(lambda call: call.q.shape[3] ** -0.5),
    ),
    _numeric("output-one-percent", "B44", "a descale that is 1% off", finish=_times(1.01)),
    _numeric(
        "softcap-ignored",
        "B80",
        "softcap is silently ignored",
        prepare=lambda c: replace(c, softcap=0.0),
    ),
    _numeric("softcap-before-scale", "B56", "softcap of the raw product", scores=_cap_before_scale),
    _numeric("softcap-undivided", "B56", "tanh without the division", scores=_cap_undivided),
    _numeric("softcap-after-alibi", "B56", "softcap over the bias too", scores=_cap_after_alibi),
    Mutant(
        id="softcap-cached",
        family="numerics",
        bug="B56",
        stands_for="the first softcap is compiled in",
        make=_first_softcap,
    ),
    Mutant(
        id="scale-cached",
        family="numerics",
        bug="B75",
        stands_for="the first scale of a head size is compiled in",
        make=_first_scale,
    ),
    _numeric(
        "alibi-ignored",
        "B80",
        "slopes are silently ignored",
        prepare=lambda c: replace(c, slopes=None),
    ),
    _numeric(
        "alibi-in-bf16",
        "B54",
        "slopes cast to bf16",
        prepare=_slopes(lambda s: s.bfloat16().float()),
    ),
    _numeric(
        "alibi-batch-zero",
        "B54",
        "slopes of batch 0 for all",
        prepare=_slopes(lambda s: s[:1].expand_as(s)),
    ),
    _numeric(
        "alibi-heads-reversed",
        "B54",
        "slopes of another head",
        prepare=_slopes(lambda s: s.flip(1)),
    ),
    _numeric(
        "alibi-off-by-one",
        "B54",
        "slope * (distance + 1)",
        scores=_bias(lambda c: (c.distance + 1).abs()),
    ),
    _numeric("alibi-signed", "B54", "no absolute value", scores=_bias(lambda c: c.distance)),
    _numeric(
        "alibi-top-left", "B54", "the bias along the wrong diagonal", scores=_bias(_unshifted)
    ),
)
