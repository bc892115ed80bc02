"""The steps of the forward kernel, an online softmax over tiles of keys; a mutant replaces one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation.problem import Problem


@dataclass(frozen=True)
class State:
    """The running softmax: its output, maximum and sum; (batch, heads, seqlen_q, ...)."""

    out: Tensor
    maximum: Tensor
    total: Tensor


@dataclass(frozen=True)
class Tile:
    """One tile of keys: scores with -inf where hidden, the values, and which tile it is.

    ``weights`` is what dropout makes of each key, 0 or 1 / (1 - probability), or None.
    """

    scores: Tensor
    values: Tensor
    weights: Tensor | None
    dtype: torch.dtype
    number: int
    first: int


Partial = tuple[Tensor, Tensor]
"""An output (batch, heads, seqlen_q, headdim), float32, and its log-sum-exp."""


def identity(problem: Problem) -> Problem:
    """Leave the problem as it is."""
    return problem


def scores(problem: Problem) -> Tensor:
    """Return the logits, unmasked: (batch, heads, seqlen_q, seqlen_k)."""
    return biased(capped(products(problem) * problem.scale, problem), problem)


def products(problem: Problem) -> Tensor:
    """Return q . k."""
    return problem.q @ problem.k[:, problem.k_head].transpose(2, 3)


def capped(logits: Tensor, problem: Problem) -> Tensor:
    """Apply softcap."""
    return problem.softcap * torch.tanh(logits / problem.softcap) if problem.softcap else logits


def biased(logits: Tensor, problem: Problem) -> Tensor:
    """Apply ALiBi."""
    if problem.slopes is None:
        return logits
    return logits - problem.slopes[:, :, None, None] * problem.distance.abs()


def seen(problem: Problem) -> Tensor:
    """Return which key a query sees; broadcasts to (batch, heads, seqlen_q, seqlen_k)."""
    distance = problem.distance
    visible = torch.ones_like(distance, dtype=torch.bool)
    if problem.left >= 0:
        visible &= distance <= problem.left
    if problem.right >= 0:
        visible &= distance >= -problem.right
    return visible


def values(problem: Problem, visible: Tensor) -> Tensor:
    """Return the values that each query head reads; what no query sees is not read at all."""
    nobody = ~visible.flatten(0, -2).any(0) if visible.numel() else visible.new_zeros(0)
    read = problem.v[:, problem.v_head]
    return read.masked_fill(nobody[:, None], 0.0) if nobody.numel() else read


def dropped(problem: Problem) -> Tensor | None:
    """Draw what dropout makes of each key from torch's generator; None without dropout."""
    if not problem.dropout:
        return None
    shape = (*problem.q.shape[:3], problem.keys)
    return (torch.rand(shape) >= problem.dropout) / (1 - problem.dropout)


def weights(logits: Tensor, anchor: Tensor) -> Tensor:
    """Return the exponentials of one tile."""
    return torch.exp(logits - anchor[..., None])


def anchored(maximum: Tensor) -> Tensor:
    """Return what to subtract: the maximum, or 0 in rows that have seen no key yet."""
    return maximum.masked_fill(torch.isneginf(maximum), 0.0)


def rounded(p: Tensor, dtype: torch.dtype) -> Tensor:
    """Round P to the input type, as a tensor core's operand is."""
    return p.to(dtype).float()


def weighed(
    p: Tensor, tile: Tile, quantize: Callable[[Tensor, torch.dtype], Tensor] = rounded
) -> Tensor:
    """Return what a tile adds to the output."""
    return quantize(p if tile.weights is None else p * tile.weights, tile.dtype) @ tile.values


def fold(
    state: State,
    tile: Tile,
    *,
    weigh: Callable[[Tensor, Tensor], Tensor] = weights,
    quantize: Callable[[Tensor, torch.dtype], Tensor] = rounded,
) -> State:
    """Fold one tile into the running softmax; dropout leaves its sum alone."""
    maximum = torch.maximum(state.maximum, tile.scores.amax(-1))
    anchor = anchored(maximum)
    p = weigh(tile.scores, anchor)
    shrink = torch.exp(state.maximum - anchor)
    return State(
        state.out * shrink[..., None] + weighed(p, tile, quantize),
        maximum,
        state.total * shrink + p.sum(-1),
    )


def close(state: State) -> Partial:
    """Normalise; a row without keys has output 0 and log-sum-exp -inf."""
    empty = state.total == 0
    total = state.total.masked_fill(empty, 1.0)
    lse = (state.maximum + torch.log(total)).masked_fill(empty, -torch.inf)
    return state.out / total[..., None], lse


def merge(partials: Sequence[Partial]) -> Partial:
    """Merge splits by their log-sum-exp."""
    lse = torch.logsumexp(torch.stack([lse for _, lse in partials]), 0)
    anchor = anchored(lse)
    return summed(partials, [torch.exp(part - anchor) for _, part in partials]), lse


def summed(partials: Sequence[Partial], factors: Sequence[Tensor]) -> Tensor:
    """Return the sum of the outputs of splits, each times its factor per row."""
    return torch.stack(
        [factor[..., None] * out for factor, (out, _) in zip(factors, partials, strict=True)]
    ).sum(0)


def sunk(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Give each head's sink its share of the softmax; it has no value."""
    if problem.sinks is None:
        return out, lse
    whole = torch.logaddexp(lse, problem.sinks[:, None].expand_as(lse))
    return out * torch.exp(lse - anchored(whole))[..., None], whole


def finish(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    """Leave out and LSE as they are."""
    return out, lse


def tiles(keys: int, block: int) -> list[range]:
    """Cut the keys into tiles."""
    return [range(start, min(start + block, keys)) for start in range(0, keys, block)]


def in_order(cut: list[range], splits: int) -> list[list[range]]:
    """Share the tiles out to the splits, in order."""
    size = -(-len(cut) // splits)
    return [cut[size * n : size * (n + 1)] for n in range(splits)]
