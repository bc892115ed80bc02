"""A call of attention in the kernels' terms: checked, with every tensor of four axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.kernels.memory import Batch, View, view
from pinproof_cell.kernels.scores import LOG2E, Scoring
from pinproof_cell.kernels.tiles import padded


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What the kernels are told of a call, whichever pass they make.

    A packed tensor appears in every element of the batch, with a stride of 0: `batch` says where
    each sequence begins. `seqlen_q` and `seqlen_k` are the longest; `left` and `right` count the
    keys that a query sees beside its own place, None without limit.
    """

    q: View
    k: View
    v: View
    slopes: View | None
    sinks: View | None
    keep: View | None
    batch: Batch
    size: int
    seqlen_q: int
    seqlen_k: int
    heads: int
    heads_k: int
    head_dim: int
    head_dim_v: int
    left: int | None
    right: int | None
    scoring: Scoring

    @property
    def group(self) -> int:
        """How many query heads share one key head."""
        return self.heads // self.heads_k

    @property
    def widest(self) -> int:
        """The larger of the two head dimensions."""
        return max(self.head_dim, self.head_dim_v)

    def rows(self, x: Tensor) -> View:
        """Return a tensor of rows, dense or packed, as a view of each sequence."""
        return _each(x, self.size)

    def numbers(self, x: Tensor) -> View:
        """Return one number per row and head, (..., nheads, rows), as a view of each sequence."""
        return _each(x.transpose(-1, -2).unsqueeze(-1), self.size)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments by name that the kernels of both passes take."""
        return {
            "q": self.q, "k": self.k, "v": self.v, "slopes": self.slopes, "keep": self.keep,
            "batch": self.batch, "seqlen_q": self.seqlen_q, "seqlen_k": self.seqlen_k,
            "heads": self.heads, "group": self.group, "left": self.left, "right": self.right,
            "scoring": self.scoring, "HEAD": self.head_dim, "HEAD_V": self.head_dim_v,
            "BLOCK_D": padded(self.head_dim), "BLOCK_DV": padded(self.head_dim_v),
        }  # fmt: skip


def _each(x: Tensor, size: int) -> View:
    """Return a dense tensor, or one packed tensor in every element of the batch, as a view."""
    return view(x if x.dim() == 4 else x.expand(size, *x.shape))


def prepared(call: Call, keep: Tensor | None) -> Problem:
    """Return the problem that `call` is; `keep` is the mask of its dropout.

    Raises ValueError for shapes that do not fit, a scale that is not positive, and dropout
    without its mask.
    """
    size, seqlen_q, seqlen_k = _sizes(call)
    _check(call, keep)
    q, k, v = call.q, call.k, call.v
    heads = q.shape[-2]
    slopes = None if call.alibi_slopes is None else call.alibi_slopes.float().expand(size, heads)
    log2e = LOG2E.value
    plain = not call.softcap and slopes is None
    # Limits beyond the sequence leave the mask as it is, and 32 bits must suffice for sums.
    left, right = (None if x < 0 else min(x, seqlen_q + seqlen_k) for x in call.limits)
    return Problem(
        q=_each(q, size),
        k=_each(k, size),
        v=_each(v, size),
        slopes=None if slopes is None else view(slopes[:, None, :, None]),
        sinks=None if call.sinks is None else view(call.sinks.float()[None, None, :, None]),
        keep=None if keep is None else _keep(keep, size),
        batch=_batch(call),
        size=size,
        seqlen_q=seqlen_q,
        seqlen_k=seqlen_k,
        heads=heads,
        heads_k=k.shape[-2],
        head_dim=q.shape[-1],
        head_dim_v=v.shape[-1],
        left=left,
        right=right,
        scoring=Scoring(
            scale=call.scale,
            to_log2=call.scale * log2e if plain else log2e,
            softcap=call.softcap or None,
            kept=None if keep is None else 1 / (1 - call.dropout),
        ),
    )


def _sizes(call: Call) -> tuple[int, int, int]:
    """Return how many sequences there are, and the longest's queries and keys."""
    if call.layout is None:
        return call.q.shape[0], call.q.shape[1], call.k.shape[1]
    return call.layout.batch, call.layout.max_q, call.layout.max_k


def _keep(keep: Tensor, size: int) -> View:
    whole = keep.view(torch.uint8).transpose(1, 2)
    return view(whole.expand(size, *whole.shape[1:]))


def _batch(call: Call) -> Batch:
    layout = call.layout
    if layout is None:
        return Batch()
    table = layout.block_table
    return Batch(
        starts_q=layout.starts_q,
        lengths_k=layout.lengths_k,
        starts_k=layout.left_padding if layout.starts_k is None else layout.starts_k,
        table=table if table is None else table.contiguous(),
        most=table if table is None else table.shape[1],
        page=table if table is None else call.k.shape[1],
    )


def _check(call: Call, keep: Tensor | None) -> None:
    """Raise ValueError where something does not fit."""
    q, k, v, layout = call.q, call.k, call.v, call.layout
    dims_q, dims_k = (4, 4) if layout is None else (3, 3 if layout.starts_k is not None else 4)
    fits = (
        (q.dim(), k.dim(), v.dim()) == (dims_q, dims_k, dims_k)
        and k.shape[:-1] == v.shape[:-1]
        and k.shape[-1] == q.shape[-1]
        and q.shape[-2] % k.shape[-2] == 0
        and (layout is not None or k.shape[0] == q.shape[0])
    )
    if not fits:
        raise ValueError(f"shapes do not fit: {tuple(q.shape)} {tuple(k.shape)} {tuple(v.shape)}")
    if not call.scale > 0:
        raise ValueError(f"softmax_scale must be positive, not {call.scale}")
    if call.dropout and keep is None:
        raise ValueError("dropout needs its mask, `keep`")
    if not 0 <= call.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), not {call.dropout}")
    dense = layout is None
    rows, keys = (q.shape[1], k.shape[1]) if layout is None else (q.shape[0], layout.max_k)
    pairs = (q.shape[0] if dense else 1, q.shape[-2], rows, keys)
    if keep is not None and keep.shape != pairs:
        raise ValueError(f"shapes do not fit: keep {tuple(keep.shape)} for {pairs}")
