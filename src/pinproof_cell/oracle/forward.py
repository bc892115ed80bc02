"""The oracle: eager attention in float64 on the same low-precision inputs, never cast back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle import rounding

#: Scores held at a time, in numbers: rows are taken in chunks, so that memory stays bounded.
CHUNK = 1 << 24


@dataclass(frozen=True)
class Truth:
    """What attention is, in float64, and what a correct kernel's rounding depends on.

    ``out``, ``pv2`` = P^2 V^2, ``pav`` = P |V| and ``tail`` = e^(2(m - LSE)) times the sum of V^2
    over the visible keys (m: the row's largest logit, or its sink) are (batch, seqlen_q,
    nheads, headdim_v); ``lse``, in which a sink has its share, and ``row_maximum``, in which it has
    none, are (batch, nheads, seqlen_q), -inf for a row that sees nothing. ``along`` and
    ``tail_along`` are of that shape: the sum of P^2 (V out)^2, by which errors of P move a row in
    its own direction, and what ``tail`` is so, with (V out)^2 in place of V^2.
    ``largest_logit`` is the largest visible |logit| of all, ``logit_error`` and ``levels`` what
    `oracle.rounding` says of their errors and of how many P differ.
    """

    out: Tensor
    lse: Tensor
    row_maximum: Tensor
    pv2: Tensor
    pav: Tensor
    tail: Tensor
    along: Tensor
    tail_along: Tensor
    largest_logit: float
    logit_error: float
    levels: int
    seqlen_k: int

    @property
    def empty(self) -> Tensor:
        """Where a row sees no key: (batch, nheads, seqlen_q)."""
        return torch.isneginf(self.row_maximum)


def attention(call: Call, keep: Tensor | None = None) -> Truth:
    """Attend in float64.

    `keep` (batch, nheads, seqlen_q, seqlen_k) says which keys dropout leaves in. A ragged call is
    taken sequence by sequence: everything is then of a batch of one, with the rows of all, and so
    is `keep`, (1, nheads, total_q, max_k), whose columns are the keys of each row's own sequence.
    """
    if call.layout is None:
        return _dense(call, keep)
    return joined([_dense(*pair) for pair in zip(call.sequences(), kept(call, keep), strict=True)])


def kept(call: Call, keep: Tensor | None) -> list[Tensor | None]:
    """Return of the `keep` of a ragged call that of each of its sequences."""
    assert call.layout is not None  # noqa: S101  (the caller asked)
    if keep is None:
        return [None] * call.layout.batch
    lengths: list[int] = call.layout.lengths_k.tolist()
    return [
        keep[:, :, begin:end, :length]
        for (begin, end), length in zip(call.layout.rows(), lengths, strict=True)
    ]


def _dense(call: Call, keep: Tensor | None) -> Truth:
    batch, seqlen_q, heads, _ = call.q.shape
    seqlen_k, group = call.k.shape[1], heads // call.k.shape[2]
    queries = call.q.double().transpose(1, 2) * call.scale
    keys = call.k.double().transpose(1, 2).repeat_interleave(group, 1)
    values = call.v.double().transpose(1, 2).repeat_interleave(group, 1)
    slopes = None if call.alibi_slopes is None else call.alibi_slopes.double().expand(batch, heads)
    sinks = None if call.sinks is None else call.sinks.double()[None, :, None]
    step = max(1, CHUNK // max(1, batch * heads * seqlen_k))
    parts, product, logit, levels = [], 0.0, 0.0, 0
    for start in range(0, max(seqlen_q, 1), step):
        rows = torch.arange(start, min(start + step, seqlen_q), device=call.q.device)
        own = (rows + seqlen_k - seqlen_q)[:, None]
        distance = own - torch.arange(seqlen_k, device=call.q.device)
        scores = queries[:, :, start : start + step] @ keys.transpose(2, 3)
        seen = visible(distance, call.limits)
        product = max(product, largest(scores, seen))
        if call.softcap:
            scores = call.softcap * torch.tanh(scores / call.softcap)
        if slopes is not None:
            scores = scores - slopes[:, :, None, None] * distance.abs()
        kept = None if keep is None else keep[:, :, start : start + step].double()
        weights = None if kept is None else kept / (1 - call.dropout)
        parts.append(_rows(scores, seen, values, sinks, weights))
        logit = max(logit, largest(scores, seen))
        levels = max(levels, rounding.levels(scores, seen, call.q.dtype))
    joined = [torch.cat(column, dim=2) for column in zip(*parts, strict=True)]
    out, pv2, pav, tail = (x.transpose(1, 2) for x in joined[:4])
    lse, row_maximum, along, tail_along = joined[4:]
    return Truth(
        out=out,
        lse=lse,
        row_maximum=row_maximum,
        pv2=pv2,
        pav=pav,
        tail=tail,
        along=along,
        tail_along=tail_along,
        largest_logit=logit,
        logit_error=rounding.of_logits(call, logit, product),
        levels=levels,
        seqlen_k=seqlen_k,
    )


def joined(truths: list[Truth]) -> Truth:
    """Return the truths of single sequences as that of one batch, row after row."""
    rows = {
        name: torch.cat([getattr(truth, name) for truth in truths], dim=axis)
        for names, axis in (
            (("out", "pv2", "pav", "tail"), 1),
            (("lse", "row_maximum", "along", "tail_along"), 2),
        )
        for name in names
    }
    return Truth(
        **rows,
        largest_logit=max(truth.largest_logit for truth in truths),
        logit_error=max(truth.logit_error for truth in truths),
        levels=max(truth.levels for truth in truths),
        seqlen_k=max(truth.seqlen_k for truth in truths),
    )


def largest(scores: Tensor, seen: Tensor) -> float:
    """Return the largest |score| that is seen, 0 where none is."""
    return float(scores.abs().masked_fill(~seen, 0.0).max()) if scores.numel() else 0.0


def visible(distance: Tensor, limits: tuple[int, int]) -> Tensor:
    """Return which keys a query sees; `distance` counts keys leftwards from its own place."""
    left, right = limits
    seen = torch.ones_like(distance, dtype=torch.bool)
    if left >= 0:
        seen &= distance <= left
    if right >= 0:
        seen &= distance >= -right
    return seen


def ends_of_p(weights: Tensor | None) -> Tensor:
    """Return the squares of what multiplies what is lost of P at the end of its range, summed.

    With dropout a kernel may round P before and after it is multiplied by its `weights`.
    """
    if weights is None:
        return torch.ones((), dtype=torch.float64)
    return weights.square() + (weights > 0)


def _rows(
    scores: Tensor, seen: Tensor, values: Tensor, sinks: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, ...]:
    """Return out, pv2, pav, tail, lse, row maximum, along and tail_along of some rows.

    `weights` is what dropout makes of each key: 0, or 1 / (1 - probability).
    """
    low = -torch.inf
    hidden = ~seen
    # One more column of -inf: with no keys at all, a maximum would not be defined.
    padded = torch.nn.functional.pad(scores.masked_fill(hidden, low), (0, 1), value=low)
    maximum = padded.amax(-1)
    lse = torch.logsumexp(padded, -1)
    if sinks is not None:
        lse = torch.logaddexp(lse, sinks.expand_as(lse))
    p = torch.exp(scores - lse.masked_fill(lse == low, 0.0)[..., None]).masked_fill(hidden, 0.0)
    # What a kernel takes P relative to: the largest logit, or the sink, where that is larger.
    anchor = maximum if sinks is None else torch.maximum(maximum, sinks.expand_as(maximum))
    spread = torch.exp(2 * (anchor - lse)).nan_to_num(0.0)[..., None]
    squares, pairs = values.square(), seen * ends_of_p(weights)
    if weights is not None:
        p = p * weights
    out = p @ values
    own = (out @ values.transpose(2, 3)).square()
    return (
        out,
        p.square() @ squares,
        p @ values.abs(),
        spread * (pairs @ squares),
        lse,
        maximum,
        (p.square() * own).sum(-1),
        spread[..., 0] * (pairs * own).sum(-1),
    )
