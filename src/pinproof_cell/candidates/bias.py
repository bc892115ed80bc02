"""Masks and ALiBi as one float bias, for operators that take a bias and know no windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pinproof_cell.call import Call


def needs_bias(call: Call) -> bool:
    """Say if the call has more than no mask, or the causal mask of a square.

    torch's operators align their causal flag top-left; on a square that is bottom-right too.
    """
    square = call.q.shape[1] == call.k.shape[1]
    plain = call.window_size == (-1, -1) and call.alibi_slopes is None
    return not plain or (call.causal and not square)


def bias(call: Call, dtype: torch.dtype, *, multiple: int = 1) -> Tensor:
    """Return mask and ALiBi as a bias (1 or batch, 1 or nheads, seqlen_q, seqlen_k).

    Its rows lie a multiple of `multiple` elements apart, which some kernels want.
    """
    import torch

    (batch, seqlen_q, heads, _), seqlen_k = call.q.shape, call.k.shape[1]
    device = call.q.device
    own = torch.arange(seqlen_q, device=device)[:, None] + seqlen_k - seqlen_q
    distance = own - torch.arange(-(-seqlen_k // multiple) * multiple, device=device)
    found = torch.zeros(1, 1, *distance.shape, device=device)
    if call.alibi_slopes is not None:
        slopes = call.alibi_slopes.float().expand(batch, heads)
        found = -slopes[:, :, None, None] * distance.abs()
    left, right = call.limits
    if left >= 0:
        found = found.masked_fill(distance > left, -torch.inf)
    if right >= 0:
        found = found.masked_fill(distance < -right, -torch.inf)
    return found.to(dtype)[..., :seqlen_k]


def has_empty_rows(call: Call) -> bool:
    """Say if a query of this dense call sees no key."""
    seqlen_q, seqlen_k, right = call.q.shape[1], call.k.shape[1], call.limits[1]
    return seqlen_q > 0 and (seqlen_k == 0 or (right >= 0 and seqlen_k - seqlen_q + right < 0))
