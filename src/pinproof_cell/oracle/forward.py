"""The oracle: eager attention in float64 on the same low-precision inputs, never cast back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Scores held at a time, in numbers: rows are taken in chunks, so that memory stays bounded.
CHUNK = 1 << 24


@dataclass(frozen=True)
class Truth:
    """What attention is, in float64, and what a correct kernel's rounding depends on.

    ``out``, ``pv2`` = P^2 V^2, ``pav`` = P |V| and ``subnormal`` = e^(2(m - LSE)) times the sum of
    V^2 over the visible keys (m: the row's largest logit) are (batch, seqlen_q, nheads,
    headdim_v); ``lse`` and ``row_maximum`` are (batch, nheads, seqlen_q), -inf for a row that sees
    no key. ``largest_logit`` is the largest visible |logit| of all.
    """

    out: Tensor
    lse: Tensor
    row_maximum: Tensor
    pv2: Tensor
    pav: Tensor
    subnormal: Tensor
    largest_logit: float
    seqlen_k: int

    @property
    def empty(self) -> Tensor:
        """Where a row sees no key: (batch, nheads, seqlen_q)."""
        return torch.isneginf(self.lse)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
) -> Truth:
    """Attend as `pinproof_cell.kernels.reference.attention` does, in float64."""
    batch, seqlen_q, heads, head_dim = q.shape
    seqlen_k, group = k.shape[1], heads // k.shape[2]
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    queries = q.double().transpose(1, 2) * scale
    keys = k.double().transpose(1, 2).repeat_interleave(group, 1)
    values = v.double().transpose(1, 2).repeat_interleave(group, 1)
    slopes = None if alibi_slopes is None else alibi_slopes.double().expand(batch, heads)
    step = max(1, CHUNK // max(1, batch * heads * seqlen_k))
    parts = []
    for start in range(0, seqlen_q, step):
        rows = torch.arange(start, min(start + step, seqlen_q), device=q.device)
        distance = (rows + seqlen_k - seqlen_q)[:, None] - torch.arange(seqlen_k, device=q.device)
        scores = queries[:, :, start : start + step] @ keys.transpose(2, 3)
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if slopes is not None:
            scores = scores - slopes[:, :, None, None] * distance.abs()
        parts.append(_rows(scores, _visible(distance, causal, window_size), values))
    joined = [torch.cat(column, dim=2) for column in zip(*parts, strict=True)]
    out, pv2, pav, subnormal = (x.transpose(1, 2) for x in joined[:4])
    lse, row_maximum, magnitude = joined[4:]
    return Truth(
        out=out,
        lse=lse,
        row_maximum=row_maximum,
        pv2=pv2,
        pav=pav,
        subnormal=subnormal,
        largest_logit=float(magnitude.max()),
        seqlen_k=seqlen_k,
    )


def _visible(distance: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
    """Return which keys a query sees; `distance` counts keys leftwards from its own place."""
    left, right = window_size
    seen = torch.ones_like(distance, dtype=torch.bool)
    if left >= 0:
        seen &= distance <= left
    if causal:
        right = 0
    if right >= 0:
        seen &= distance >= -right
    return seen


def _rows(scores: Tensor, seen: Tensor, values: Tensor) -> tuple[Tensor, ...]:
    """Return out, pv2, pav, subnormal, lse, row maximum and largest |logit| of some rows."""
    low = -torch.inf
    hidden = ~seen
    # One more column of -inf: with no keys at all, a maximum would not be defined.
    padded = torch.nn.functional.pad(scores.masked_fill(hidden, low), (0, 1), value=low)
    maximum = padded.amax(-1)
    lse = torch.logsumexp(padded, -1)
    p = torch.exp(scores - lse.masked_fill(lse == low, 0.0)[..., None]).masked_fill(hidden, 0.0)
    magnitude = torch.nn.functional.pad(scores.abs().masked_fill(hidden, 0.0), (0, 1)).amax(-1)
    spread = torch.exp(2 * (maximum - lse)).nan_to_num(0.0)[..., None]
    squares = values.square()
    return (
        p @ values,
        p.square() @ squares,
        p @ values.abs(),
        spread * (seen.double() @ squares),
        lse,
        maximum,
        magnitude,
    )


def low_precision(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
) -> Tensor:
    """Attend in the inputs' own type, step by step: what flash-attn's tests compare with."""
    seqlen_q, seqlen_k, group = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    scale = q.shape[3] ** -0.5 if softmax_scale is None else softmax_scale
    keys = (k * scale).transpose(1, 2).repeat_interleave(group, 1)
    values = v.transpose(1, 2).repeat_interleave(group, 1)
    scores = (q.transpose(1, 2) @ keys.transpose(2, 3)).float()
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    own = torch.arange(seqlen_q, device=q.device)[:, None] + seqlen_k - seqlen_q
    distance = own - torch.arange(seqlen_k, device=q.device)
    if alibi_slopes is not None:
        slopes = alibi_slopes.expand(q.shape[0], q.shape[2])
        scores = scores - slopes[:, :, None, None] * distance.abs()
    hidden = ~_visible(distance, causal, window_size)
    p = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1).masked_fill(hidden, 0.0)
    return (p.to(v.dtype) @ values).transpose(1, 2)
