"""Attention step by step in the inputs' own type: what flash-attn's tests compare a kernel with."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle.forward import kept, visible


def attention(call: Call, keep: Tensor | None = None) -> Tensor:
    """Attend; `keep` and a ragged call as in `pinproof_cell.oracle.forward.attention`."""
    if call.layout is None:
        return _dense(call, keep)
    pairs = zip(call.sequences(), kept(call, keep), strict=True)
    return torch.cat([_dense(*pair) for pair in pairs], dim=1)


def gradients(dout: Tensor, call: Call, keep: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return dQ, dK and dV by autograd, each like its input."""
    leaves = [x.detach().requires_grad_() for x in (call.q, call.k, call.v)]
    q, k, v = leaves
    with torch.enable_grad():
        out = attention(replace(call, q=q, k=k, v=v), keep).reshape(dout.shape)
        found = torch.autograd.grad(out, leaves, dout, allow_unused=True)
    return tuple(
        torch.zeros_like(x) if grad is None else grad for x, grad in zip(leaves, found, strict=True)
    )


def _dense(call: Call, keep: Tensor | None) -> Tensor:
    q, k, v = call.q, call.k, call.v
    seqlen_q, seqlen_k, group = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    keys = (k * call.scale).transpose(1, 2).repeat_interleave(group, 1)
    values = v.transpose(1, 2).repeat_interleave(group, 1)
    scores = (q.transpose(1, 2) @ keys.transpose(2, 3)).float()
    if call.softcap:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    own = torch.arange(seqlen_q, device=q.device)[:, None] + seqlen_k - seqlen_q
    distance = own - torch.arange(seqlen_k, device=q.device)
    if call.alibi_slopes is not None:
        slopes = call.alibi_slopes.expand(q.shape[0], q.shape[2])
        scores = scores - slopes[:, :, None, None] * distance.abs()
    hidden = ~visible(distance, call.limits)
    # A row that sees nothing would be NaN in the softmax, and so in the gradients of all.
    scores = scores.masked_fill(hidden & ~hidden.all(-1, keepdim=True), -torch.inf)
    if call.sinks is not None:
        column = call.sinks[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, column], -1)
    p = torch.softmax(scores, -1)[..., :seqlen_k].masked_fill(hidden, 0.0)
    if keep is not None:
        p = p * keep / (1 - call.dropout)
    return (p.to(v.dtype) @ values).transpose(1, 2)
