"""What the emulated kernel computes with: one batch of sequences of equal lengths, in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.call import Call


@dataclass(frozen=True)
class Problem:
    """Attention, ready to compute: the tensors (batch, heads, length, headdim), float32.

    ``k_head`` and ``v_head`` are the key and value head that each query head reads; ``left`` and
    ``right`` count the keys that a query sees beside its own place, -1 is without limit;
    ``offset`` is the key that query 0 stands at; ``slopes`` are (batch, heads) and ``sinks``
    (heads) or None. A ragged call is one problem per sequence: ``sequence`` says which, and
    ``longest`` the most queries and keys that any has.
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
    sinks: Tensor | None
    dropout: float
    splits: int
    offset: int
    sequence: int
    longest: tuple[int, int]

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


def problem(call: Call, q: Tensor, k: Tensor, v: Tensor, sequence: int = 0) -> Problem:
    """Return what `call` asks of q, k and v (batch, length, heads, headdim).

    `sequence` is the place of the first of them in the batch of the call.
    """
    batch, _, count, _ = q.shape
    heads = torch.arange(count) // (count // k.shape[2])
    slopes = call.alibi_slopes
    if slopes is not None:
        slopes = slopes.float().expand(-1, count) if slopes.dim() == 2 else slopes.float()[None]
        chosen = slopes if slopes.shape[0] == 1 else slopes[sequence : sequence + batch]
        slopes = chosen.expand(batch, count)
    return Problem(
        q=q.float().transpose(1, 2),
        k=k.float().transpose(1, 2),
        v=v.float().transpose(1, 2),
        k_head=heads,
        v_head=heads,
        dtype=q.dtype,
        scale=call.scale,
        left=call.limits[0],
        right=call.limits[1],
        causal=call.causal,
        window=call.window_size,
        softcap=call.softcap,
        slopes=slopes,
        sinks=None if call.sinks is None else call.sinks.float(),
        dropout=call.dropout,
        splits=call.splits,
        offset=k.shape[1] - q.shape[1],
        sequence=sequence,
        longest=(
            (q.shape[1], k.shape[1])
            if call.layout is None
            else (call.layout.max_q, call.layout.max_k)
        ),
    )


def as_asked(call: Call) -> Call:
    """Leave the call as it is."""
    return call
