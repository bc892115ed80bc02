"""A correct attention kernel, emulated step by step in torch so that each step can be broken.

float32 throughout, P rounded to the input type, an online softmax over tiles of keys, one rounding
of the output: the arithmetic of FlashAttention-2 (Dao, 2023) without its speed. A mutant replaces
one step and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call, ready to compute: the tensors (batch, heads, length, headdim), float32.

    ``k_head`` and ``v_head`` are the key and value head that each query head reads; ``left`` and
    ``right`` count the keys that a query sees beside its own place, -1 is without limit;
    ``offset`` is the key that query 0 stands at; ``slopes`` are (batch, heads) or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    k_head: Tensor
    v_head: Tensor
    dtype: torch.dtype
    scale: float
    left: int
    right: int
    causal: bool
    window: tuple[int, int]
    softcap: float
    slopes: Tensor | None
    offset: int

    @property
    def group(self) -> int:
        """How many query heads share a key head."""
        return self.q.shape[1] // self.k.shape[1]

    @property
    def queries(self) -> int:
        """seqlen_q."""
        return self.q.shape[2]

    @property
    def keys(self) -> int:
        """seqlen_k."""
        return self.k.shape[2]

    @property
    def distance(self) -> Tensor:
        """How many keys left of its own place a query looks: (seqlen_q, seqlen_k)."""
        return torch.arange(self.queries)[:, None] + self.offset - torch.arange(self.keys)


@dataclass(frozen=True)
class State:
    """The running softmax: its output, maximum and sum; (batch, heads, seqlen_q, ...)."""

    out: Tensor
    maximum: Tensor
    total: Tensor


@dataclass(frozen=True)
class Tile:
    """One tile of keys: scores with -inf where hidden, the values, and which tile it is."""

    scores: Tensor
    values: Tensor
    dtype: torch.dtype
    number: int
    first: int


Partial = tuple[Tensor, Tensor]
"""An output (batch, heads, seqlen_q, headdim), float32, and its log-sum-exp."""


def scores(call: Call) -> Tensor:
    """Return the logits, unmasked: (batch, heads, seqlen_q, seqlen_k)."""
    return biased(capped(products(call) * call.scale, call), call)


def products(call: Call) -> Tensor:
    """Return q . k."""
    return call.q @ call.k[:, call.k_head].transpose(2, 3)


def capped(logits: Tensor, call: Call) -> Tensor:
    """Apply softcap."""
    return call.softcap * torch.tanh(logits / call.softcap) if call.softcap else logits


def biased(logits: Tensor, call: Call) -> Tensor:
    """Apply ALiBi."""
    if call.slopes is None:
        return logits
    return logits - call.slopes[:, :, None, None] * call.distance.abs()


def seen(call: Call) -> Tensor:
    """Return which key a query sees; broadcasts to (batch, heads, seqlen_q, seqlen_k)."""
    distance = call.distance
    visible = torch.ones_like(distance, dtype=torch.bool)
    if call.left >= 0:
        visible &= distance <= call.left
    if call.right >= 0:
        visible &= distance >= -call.right
    return visible


def values(call: Call) -> Tensor:
    """Return the values that each query head reads."""
    return call.v[:, call.v_head]


def weights(logits: Tensor, anchor: Tensor) -> Tensor:
    """Return the exponentials of one tile."""
    return torch.exp(logits - anchor[..., None])


def anchored(maximum: Tensor) -> Tensor:
    """Return what to subtract: the maximum, or 0 in rows that have seen no key yet."""
    return maximum.masked_fill(torch.isneginf(maximum), 0.0)


def rounded(p: Tensor, dtype: torch.dtype) -> Tensor:
    """Round P to the input type, as a tensor core's operand is."""
    return p.to(dtype).float()


def fold(
    state: State,
    tile: Tile,
    *,
    weigh: Callable[[Tensor, Tensor], Tensor] = weights,
    quantize: Callable[[Tensor, torch.dtype], Tensor] = rounded,
) -> State:
    """Fold one tile into the running softmax."""
    maximum = torch.maximum(state.maximum, tile.scores.amax(-1))
    anchor = anchored(maximum)
    p = weigh(tile.scores, anchor)
    shrink = torch.exp(state.maximum - anchor)
    return State(
        state.out * shrink[..., None] + quantize(p, tile.dtype) @ tile.values,
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
    return weighed(partials, [torch.exp(part - anchor) for _, part in partials]), lse


def weighed(partials: Sequence[Partial], factors: Sequence[Tensor]) -> Tensor:
    """Return the sum of the outputs of splits, each times its factor per row."""
    return torch.stack(
        [factor[..., None] * out for factor, (out, _) in zip(factors, partials, strict=True)]
    ).sum(0)


def finish(out: Tensor, lse: Tensor, call: Call) -> Partial:
    """Leave out and LSE as they are."""
    return out, lse


def identity(call: Call) -> Call:
    """Leave the call as it is."""
    return call


def tiles(keys: int, block: int) -> list[range]:
    """Cut the keys into tiles."""
    return [range(start, min(start + block, keys)) for start in range(0, keys, block)]


def in_order(cut: list[range], splits: int) -> list[list[range]]:
    """Share the tiles out to the splits, in order."""
    size = -(-len(cut) // splits)
    return [cut[size * n : size * (n + 1)] for n in range(splits)]


@dataclass(frozen=True)
class Kernel:
    """The steps of the kernel, each replaceable; called like any provider."""

    prepare: Callable[[Call], Call] = identity
    scores: Callable[[Call], Tensor] = scores
    seen: Callable[[Call], Tensor] = seen
    values: Callable[[Call], Tensor] = values
    fold: Callable[[State, Tile], State] = fold
    close: Callable[[State], Partial] = close
    merge: Callable[[Sequence[Partial]], Partial] = merge
    finish: Callable[[Tensor, Tensor, Call], Partial] = finish
    schedule: Callable[[list[range], int], list[list[range]]] = in_order
    cast: Callable[[Tensor, torch.dtype], Tensor] = Tensor.to
    block: int = 64
    splits: int = 1

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend; shapes and meaning as in `pinproof_cell.kernels.reference.attention`."""
        heads = torch.arange(q.shape[2]) // (q.shape[2] // k.shape[2])
        slopes = None
        if alibi_slopes is not None:
            slopes = alibi_slopes.float().expand(q.shape[0], q.shape[2])
        call = self.prepare(
            Call(
                q=q.float().transpose(1, 2),
                k=k.float().transpose(1, 2),
                v=v.float().transpose(1, 2),
                k_head=heads,
                v_head=heads,
                dtype=q.dtype,
                scale=q.shape[3] ** -0.5 if softmax_scale is None else softmax_scale,
                left=window_size[0],
                right=0 if causal else window_size[1],
                causal=causal,
                window=window_size,
                softcap=softcap,
                slopes=slopes,
                offset=k.shape[1] - q.shape[1],
            )
        )
        out, lse = self.finish(*self._attend(call), call)
        return self.cast(out.transpose(1, 2).contiguous(), q.dtype), lse.contiguous()

    def _attend(self, call: Call) -> Partial:
        logits = self.scores(call)
        logits = logits.masked_fill(~self.seen(call), -torch.inf)
        read = self.values(call)
        cut = tiles(logits.shape[-1], self.block)
        partials = []
        for share in self.schedule(cut, self.splits):
            state = _start(call, read.shape[-1])
            for number, keys in enumerate(share):
                rows = slice(keys.start, keys.stop)
                tile = Tile(logits[..., rows], read[:, :, rows], call.dtype, number, keys.start)
                state = self.fold(state, tile)
            partials.append(self.close(state))
        return self.merge(partials) if len(partials) > 1 else partials[0]


def _start(call: Call, head_dim: int) -> State:
    batch, heads, queries, _ = call.q.shape
    shape = (batch, heads, queries)
    return State(torch.zeros(*shape, head_dim), torch.full(shape, -torch.inf), torch.zeros(shape))


HONEST = Kernel()


def changed(kernel: Kernel = HONEST, /, **steps: Any) -> Kernel:
    """Return `kernel` with some steps replaced."""
    return replace(kernel, **steps)
