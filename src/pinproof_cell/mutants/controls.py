"""Controls: unusual and correct kernels. A suite that rejects one of them is wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST, Backward, Kernel, Problem, changed
from pinproof_cell.mutants.emulation.gradient import of_keys, of_queries, probabilities
from pinproof_cell.mutants.emulation.softmax import (
    Partial,
    State,
    Tile,
    anchored,
    dropped,
    fold,
    merge,
    rounded,
    scores,
    seen,
    sunk,
    weighed,
    weights,
)
from pinproof_cell.mutants.mutant import Family


def _reversed(cut: list[range], splits: int) -> list[list[range]]:
    return [cut[::-1]]


def _shuffled(cut: list[range], splits: int) -> list[list[range]]:
    """Return the tiles in an order that looks like none and is the same every time."""
    return [random.Random(3).sample(cut, len(cut))]  # noqa: S311  (not a secret)


def _merged_backwards(partials: Sequence[Partial]) -> Partial:
    """Merge two parts at a time, the last ones first."""
    whole = partials[-1]
    for part in partials[-2::-1]:
        whole = merge([whole, part])
    return whole


def _float(p: Tensor, dtype: torch.dtype) -> Tensor:
    return p


def _noisy_exp(logits: Tensor, anchor: Tensor) -> Tensor:
    """Return the exponential with a relative error of 2^-20 that depends on its bits."""
    p = torch.exp(logits - anchor[..., None])
    return p * (1 + torch.sin(p * 1e6) * 2.0**-20)


def _flushed(p: Tensor) -> Tensor:
    """Return `p` as a GPU's ex2.approx.ftz leaves it: 0 below the smallest normal number."""
    return p.masked_fill(p.abs() < 2.0**-126, 0.0)


def _flushed_exp(logits: Tensor, anchor: Tensor) -> Tensor:
    return _flushed(weights(logits, anchor))


def _flushed_again(logits: Tensor, lse: Tensor) -> Tensor:
    return _flushed(probabilities(logits, lse))


def _rounded_early(state: State, tile: Tile) -> State:
    """Round P before dropout's factor multiplies it, and again after."""
    top = torch.maximum(state.maximum, tile.scores.amax(-1))
    p = weights(tile.scores, anchored(top))
    shrink = torch.exp(state.maximum - anchored(top))
    out = state.out * shrink[..., None] + weighed(rounded(p, tile.dtype), tile)
    return State(out, top, state.total * shrink + p.sum(-1))


def _rounded_factor(problem: Problem) -> Tensor | None:
    """Draw the mask, with dropout's factor in the input type."""
    drawn = dropped(problem)
    return drawn if drawn is None else rounded(drawn, problem.dtype)


def _of_rounded(p: Tensor, off: Tensor, problem: Problem) -> Tensor:
    """Return dS, already scaled, from P in the input type, as torch's efficient kernel does."""
    return rounded(p, problem.dtype) * off * problem.scale


def _dq_of_scaled(ds: Tensor, problem: Problem) -> Tensor:
    return of_queries(ds, replace(problem, scale=1.0))


def _dk_of_scaled(ds: Tensor, problem: Problem) -> Tensor:
    return of_keys(ds, replace(problem, scale=1.0))


def _lazy(state: State, tile: Tile) -> State:
    """Fold with the old maximum until a new one is 2^8 times as large, as FlashAttention-4 does."""
    top = torch.maximum(state.maximum, tile.scores.amax(-1))
    grown = top - anchored(state.maximum) > 8 * math.log(2)
    maximum = torch.where(grown | torch.isneginf(state.maximum), top, state.maximum)
    anchor = anchored(maximum)
    p = torch.exp(tile.scores - anchor[..., None])
    shrink = torch.exp(state.maximum - anchor)
    out = state.out * shrink[..., None] + weighed(p, tile)
    return State(out, maximum, state.total * shrink + p.sum(-1))


def _own_lse(problem: Problem) -> Tensor:
    """Return the log-sum-exp of the keys that each query sees."""
    return torch.logsumexp(scores(problem).masked_fill(~seen(problem), -torch.inf), -1)


def _normalised(problem: Problem) -> Tensor:
    return scores(problem) - anchored(_own_lse(problem))[..., None]


def _summed(state: State, tile: Tile) -> State:
    """Fold a tile of normalised scores: there is no maximum to keep."""
    p = torch.exp(tile.scores)
    nothing = torch.zeros_like(state.total)
    return State(state.out + weighed(p, tile), nothing, state.total + p.sum(-1))


def _own_sum(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    return sunk(out, _own_lse(problem) if problem.keys else lse, problem)


def _sink_as_split(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Merge the sink as one more part, whose output is 0."""
    if problem.sinks is None:
        return out, lse
    alone = problem.sinks[:, None].expand_as(lse)
    return merge([(out, lse), (torch.zeros_like(out), alone)])


def _not_on_empty(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Leave rows without keys without their sink."""
    found, whole = sunk(out, lse, problem)
    return found, torch.where(torch.isneginf(lse), lse, whole)


def _other_mask(problem: Problem) -> Tensor | None:
    """Draw another mask than the emulation does, in both passes."""
    if problem.dropout:
        torch.rand(1)
    return dropped(problem)


def _single_unmasked(problem: Problem) -> Problem:
    """Leave the causal mask of a single query out: it is the last one and sees every key."""
    return replace(problem, right=-1) if problem.causal and problem.queries == 1 else problem


def _again(lse: Tensor, problem: Problem) -> Tensor:
    """Compute the log-sum-exp anew."""
    if not problem.keys:
        return lse
    whole = _own_lse(problem)
    return whole if problem.sinks is None else sunk(whole[..., None], whole, problem)[1]


def _rounded_shares(ds: Tensor, problem: Problem) -> Tensor:
    """Round each query head's share of dK, before a group is summed, as flash-attn 2 does."""
    return rounded(of_keys(ds, problem), problem.dtype)


def _window_or_none(
    q: Tensor, k: Tensor, v: Tensor, *, window_size: tuple[int, int] = (-1, -1), **rest: Any
) -> tuple[Tensor, Tensor]:
    """Take a limit of 0 for none where only the number of tiles depends on it."""
    tiles = 1 + ((window_size[0] or k.shape[1]) + (window_size[1] or k.shape[1])) // 64
    kernel = changed(block=64 if tiles > 4 else 32)
    return kernel(q, k, v, window_size=window_size, **rest)


class _PlusInf(Kernel):
    """A kernel that writes +inf for a row without keys, and says so."""

    lse_on_empty_rows = math.inf


def _plus_inf(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    return out, lse.masked_fill(torch.isneginf(lse), math.inf)


_control = Family(name="control", control=True)

MUTANTS = (
    _control("honest", "", "the emulation itself", function=HONEST),
    _control("p-in-float32", "", "P is not rounded", fold=partial(fold, quantize=_float)),
    _control(
        "p-normalised",
        "",
        "P divided by its sum before it is rounded",
        scores=_normalised,
        fold=_summed,
        sunk=_own_sum,
    ),
    _control("keys-reversed", "", "tiles from the last to the first", schedule=_reversed),
    _control("keys-shuffled", "", "small tiles in any order", schedule=_shuffled, block=16),
    _control("splits-3", "", "three splits, merged", splits=3),
    _control("splits-7-of-16", "", "seven splits of small tiles", splits=7, block=16),
    _control("splits-merged-backwards", "", "two at a time", splits=5, merge=_merged_backwards),
    _control(
        "splits-ignored",
        "",
        "as many splits as it likes",
        ask=lambda call: replace(call, splits=0),
    ),
    _control("block-16", "", "tiles of 16 keys", block=16),
    _control("block-32", "", "tiles of 32 keys", block=32),
    _control("block-128", "", "tiles of 128 keys", block=128),
    _control("noisy-exp", "", "an exponential good to 2^-20", fold=partial(fold, weigh=_noisy_exp)),
    _control(
        "tails-flushed",
        "",
        "what lies below 2^-126 is 0",
        fold=partial(fold, weigh=_flushed_exp),
        backward_steps=Backward(
            probabilities=_flushed_again, quantize=lambda x, dtype: _flushed(rounded(x, dtype))
        ),
    ),
    _control(
        "rounded-early",
        "",
        "P in the input type throughout, dS scaled before it is rounded",
        dropped=_rounded_factor,
        fold=_rounded_early,
        backward_steps=Backward(
            dropped=_rounded_factor,
            of_scores=_of_rounded,
            of_queries=_dq_of_scaled,
            of_keys=_dk_of_scaled,
        ),
    ),
    _control("maximum-lags", "", "rescaled when it grows by 2^8", fold=_lazy),
    _control("sink-as-split", "", "the sink is merged as a split", sunk=_sink_as_split),
    _control("sink-not-on-empty", "B33", "rows without keys have LSE -inf", sunk=_not_on_empty),
    _control(
        "dropout-other-mask",
        "",
        "a mask of its own, in both passes",
        dropped=_other_mask,
        backward_steps=Backward(dropped=_other_mask),
    ),
    _control("single-query-unmasked", "", "the last row sees all", prepare=_single_unmasked),
    _control("zero-is-no-window", "B16", "a wrong estimate of the work", function=_window_or_none),
    _control("lse-plus-inf-declared", "B33", "a convention", function=_PlusInf(finish=_plus_inf)),
    _control("ds-in-float32", "", "dS and P not rounded", backward_steps=Backward(quantize=_float)),
    _control("lse-recomputed", "", "not the forward's", backward_steps=Backward(stored=_again)),
    _control("shares-rounded", "", "per head", backward_steps=Backward(of_keys=_rounded_shares)),
)
