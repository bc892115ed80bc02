"""Mutants of the arithmetic: the online softmax, scales, softcap, ALiBi, rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import Problem
from pinproof_cell.mutants.emulation.softmax import (
    Partial,
    State,
    Tile,
    anchored,
    biased,
    capped,
    close,
    fold,
    products,
    rounded,
    scores,
    weighed,
)
from pinproof_cell.mutants.mutant import Family


def _broken_fold(*, out: bool, total: bool) -> Callable[[State, Tile], State]:
    """Return a fold that rescales only what it is told to when the maximum grows."""

    def step(state: State, tile: Tile) -> State:
        maximum = torch.maximum(state.maximum, tile.scores.amax(-1))
        anchor = anchored(maximum)
        p = torch.exp(tile.scores - anchor[..., None])
        shrink = torch.exp(state.maximum - anchor)
        one = torch.ones_like(shrink)
        return State(
            state.out * (shrink if out else one)[..., None] + weighed(p, tile),
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
    if dtype == torch.float32:
        return low
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


def _bits(problem: Problem) -> Tensor:
    """Multiply the bit patterns of the inputs, as Triton's interpreter does with bf16."""
    if problem.dtype != torch.bfloat16:
        return scores(problem)
    q, k = ((x.bfloat16().view(torch.int16).float() / 2**14) for x in (problem.q, problem.k))
    return scores(replace(problem, q=q, k=k))


def _low_scores(problem: Problem) -> Tensor:
    return biased(
        capped(rounded(products(problem), problem.dtype) * problem.scale, problem), problem
    )


def float32_plain(problem: Problem) -> Problem:
    """Return a problem of float32 without scale, softcap and slopes of its own."""
    if problem.dtype != torch.float32:
        return problem
    return replace(problem, scale=problem.q.shape[3] ** -0.5, softcap=0.0, slopes=None)


def _cap_before_scale(problem: Problem) -> Tensor:
    return biased(capped(products(problem), problem) * problem.scale, problem)


def _cap_undivided(problem: Problem) -> Tensor:
    logits = products(problem) * problem.scale
    return biased(problem.softcap * torch.tanh(logits) if problem.softcap else logits, problem)


def _cap_after_alibi(problem: Problem) -> Tensor:
    return capped(biased(products(problem) * problem.scale, problem), problem)


def _slopes(edit: Callable[[Tensor], Tensor]) -> Callable[[Problem], Problem]:
    def prepare(problem: Problem) -> Problem:
        return problem if problem.slopes is None else replace(problem, slopes=edit(problem.slopes))

    return prepare


def _bias(distance: Callable[[Problem], Tensor]) -> Callable[[Problem], Tensor]:
    """Return scores with ALiBi over another measure of distance."""

    def logits(problem: Problem) -> Tensor:
        plain = scores(replace(problem, slopes=None))
        if problem.slopes is None:
            return plain
        return plain - problem.slopes[:, :, None, None] * distance(problem)

    return logits


def _low_distance(problem: Problem) -> Tensor:
    return rounded(problem.distance.abs(), torch.bfloat16)


def _low_before_division(state: State) -> Partial:
    """Round the output to fp16 before it is divided by the sum of its weights."""
    return close(replace(state, out=rounded(state.out, torch.float16)))


def _unshifted(problem: Problem) -> Tensor:
    return (torch.arange(problem.queries)[:, None] - torch.arange(problem.keys)).abs()


def _scale(edit: Callable[[Problem], float]) -> Callable[[Problem], Problem]:
    return lambda problem: replace(problem, scale=edit(problem))


def _times(factor: float) -> Callable[[Tensor, Tensor, Problem], Partial]:
    return lambda out, lse, problem: (out * factor, lse)


_numeric = Family(name="numerics")


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
        "output-divided-in-fp16",
        "",
        "fp16 before the division by the sum",
        close=_low_before_division,
        needs=("fp16",),
    ),
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
    _numeric("scale-missing", "B45", "no softmax scale", prepare=_scale(lambda problem: 1.0)),
    _numeric(
        "scale-twice",
        "B45",
        "the scale applied twice",
        prepare=_scale(lambda problem: problem.scale**2),
    ),
    _numeric(
        "scale-ignored",
        "B80",
        "softmax_scale is silently ignored",
        prepare=_scale(lambda problem: problem.q.shape[3] ** -0.5),
    ),
    _numeric("output-one-percent", "B44", "a descale that is 1% off", finish=_times(1.01)),
    _numeric(
        "softcap-ignored",
        "B80",
        "softcap is silently ignored",
        prepare=lambda problem: replace(problem, softcap=0.0),
        needs=("softcap",),
    ),
    _numeric(
        "softcap-before-scale",
        "B56",
        "softcap of the raw product",
        scores=_cap_before_scale,
        needs=("softcap",),
    ),
    _numeric(
        "softcap-undivided",
        "B56",
        "tanh without the division",
        scores=_cap_undivided,
        needs=("softcap",),
    ),
    _numeric(
        "softcap-after-alibi",
        "B56",
        "softcap over the bias too",
        scores=_cap_after_alibi,
        needs=("softcap",),
    ),
    _numeric(
        "float32-arguments-ignored",
        "B80",
        "no scale, softcap and slopes in float32",
        prepare=float32_plain,
        needs=("fp32",),
    ),
    _numeric(
        "alibi-ignored",
        "B80",
        "slopes are silently ignored",
        prepare=lambda problem: replace(problem, slopes=None),
        needs=("alibi",),
    ),
    _numeric(
        "alibi-in-bf16",
        "B54",
        "slopes cast to bf16",
        prepare=_slopes(lambda s: s.bfloat16().float()),
        needs=("alibi",),
    ),
    _numeric(
        "alibi-batch-zero",
        "B54",
        "slopes of batch 0 for all",
        prepare=_slopes(lambda s: s[:1].expand_as(s)),
        needs=("alibi",),
    ),
    _numeric(
        "alibi-heads-reversed",
        "B54",
        "slopes of another head",
        prepare=_slopes(lambda s: s.flip(1)),
        needs=("alibi",),
    ),
    _numeric(
        "alibi-off-by-one",
        "B54",
        "slope * (distance + 1)",
        scores=_bias(lambda c: (c.distance + 1).abs()),
        needs=("alibi",),
    ),
    _numeric(
        "alibi-distance-in-bf16",
        "B54",
        "distances counted in bf16",
        scores=_bias(_low_distance),
        needs=("alibi",),
    ),
    _numeric(
        "alibi-signed",
        "B54",
        "no absolute value",
        scores=_bias(lambda c: c.distance),
        needs=("alibi",),
    ),
    _numeric(
        "alibi-top-left",
        "B54",
        "the bias along the wrong diagonal",
        scores=_bias(_unshifted),
        needs=("alibi",),
    ),
)
