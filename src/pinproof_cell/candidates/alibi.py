"""What FlashAttention 2 adds for ALiBi, which is not what its documentation says under causal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call
    from pinproof_cell.layout import Layout


def plain_lse(lse: Tensor, call: Call, longest: int) -> Tensor:
    """Return FA2's log-sum-exp without its shift of causal ALiBi.

    Where the mask is causal alone, FA2 adds slope * j instead of -slope * |i + off - j|
    (`mask.h`): the same softmax, but LSE is larger by slope * (i + off). A left window of at least
    `longest` keys, the length that its host code knows of, is none (`flash_api.cpp`).
    """
    left, right = call.limits
    if call.alibi_slopes is None or 0 <= left < longest or right != 0:
        return lse
    slopes = call.alibi_slopes.float()
    if call.layout is None:
        (batch, seqlen_q, heads, _), seqlen_k = call.q.shape, call.k.shape[1]
        own = _count(seqlen_q, lse) + seqlen_k - seqlen_q
        return lse - slopes.expand(batch, heads)[:, :, None] * own
    sequence, own = _rows(call.layout, call.q.shape[0])
    each = slopes.expand(call.layout.batch, slopes.shape[-1])[sequence]
    return lse - (each * own[:, None]).transpose(0, 1)


def _rows(layout: Layout, total: int) -> tuple[Tensor, Tensor]:
    """Return of each packed query its sequence and its place among that sequence's keys."""
    import torch

    starts, keys = layout.starts_q.long(), layout.lengths_k.long()
    rows = _count(total, starts)
    sequence = torch.searchsorted(starts[1:].contiguous(), rows, right=True)
    return sequence, rows - starts[sequence + 1] + keys[sequence]


def _count(number: int, like: Tensor) -> Tensor:
    import torch

    return torch.arange(number, device=like.device)
