"""The oracle of the gradients: eager backward attention in float64 on the same inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle.forward import CHUNK, visible


@dataclass(frozen=True)
class Gradient:
    """One gradient in float64, and what a correct kernel's rounding of it depends on.

    All are of the gradient's shape, (batch, seqlen, nheads, headdim). ``spread`` is the variance in
    units of u^2/3 that comes before the last rounding: of P and dS rounded to the input type, of
    delta = O dO from a rounded O, and of each query head's share where a group sums several.
    ``magnitude`` is the sum of absolute products, which bounds errors of float32 accumulation;
    ``squares`` the sum of the other factor's squares over the visible pairs, for subnormal P and
    dS. Where it is 0 the gradient is exactly 0: nobody sees that row.
    """

    value: Tensor
    spread: Tensor
    magnitude: Tensor
    squares: Tensor


@dataclass(frozen=True)
class Truth:
    """The gradients of q, k and v; ``largest_logit`` is the largest visible |logit|."""

    dq: Gradient
    dk: Gradient
    dv: Gradient
    largest_logit: float
    seqlen: int


def backward(dout: Tensor, call: Call, keep: Tensor | None = None) -> Truth:
    """Differentiate `pinproof_cell.oracle.forward.attention`, given the gradient of its output."""
    if keep is not None or call.layout is not None or call.sinks is not None:
        raise NotImplementedError("gradients of dropout, sinks and ragged calls")
    batch, seqlen_q, heads, _ = call.q.shape
    seqlen_k, group = call.k.shape[1], heads // call.k.shape[2]
    scale, softcap = call.scale, call.softcap
    queries, outs = call.q.double().transpose(1, 2), dout.double().transpose(1, 2)
    keys = call.k.double().transpose(1, 2).repeat_interleave(group, 1)
    values = call.v.double().transpose(1, 2).repeat_interleave(group, 1)
    slopes = None if call.alibi_slopes is None else call.alibi_slopes.double().expand(batch, heads)
    of_queries: list[tuple[Tensor, ...]] = []
    of_keys = [torch.zeros_like(keys) for _ in range(4)]
    of_values = [torch.zeros_like(values) for _ in range(4)]
    largest = 0.0
    step = max(1, CHUNK // max(1, batch * heads * seqlen_k))
    for start in range(0, seqlen_q, step):
        rows = torch.arange(start, min(start + step, seqlen_q), device=call.q.device)
        distance = (rows + seqlen_k - seqlen_q)[:, None] - torch.arange(
            seqlen_k, device=call.q.device
        )
        seen = visible(distance, call.limits)
        some, grads = queries[:, :, start : start + step], outs[:, :, start : start + step]
        scores, slope = some @ keys.transpose(2, 3) * scale, torch.ones((), device=call.q.device)
        if softcap:
            bent = torch.tanh(scores / softcap)
            scores, slope = softcap * bent, 1 - bent.square()
        if slopes is not None:
            scores = scores - slopes[:, :, None, None] * distance.abs()
        if bool(seen.any()):
            largest = max(largest, float(scores.masked_fill(~seen, 0.0).abs().max()))
        p = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1).masked_fill(~seen, 0.0)
        for_queries, for_keys, for_values = _chunk(p, slope, seen, some, grads, keys, values, scale)
        of_queries.append(for_queries)
        for total, part in zip(of_keys + of_values, for_keys + for_values, strict=True):
            total += part
    joined = [torch.cat(column, 2) for column in zip(*of_queries, strict=True)]
    empty = [torch.zeros_like(queries) for _ in range(4)]
    return Truth(
        dq=_gradient(joined or empty, 1),
        dk=_gradient(of_keys, group),
        dv=_gradient(of_values, group),
        largest_logit=largest,
        seqlen=max(seqlen_q, seqlen_k),
    )


def _chunk(
    p: Tensor,
    slope: Tensor,
    seen: Tensor,
    queries: Tensor,
    grads: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return value, spread, magnitude and squares of dQ, and what these rows add to dK and dV.

    `slope` is the derivative of the softcap. Inside: dp = dO V^T, ds the gradient of the scaled
    product, bent = P slope; noise is the variance of delta, in units of u^2/3.
    """
    out = p @ values
    dp = grads @ values.transpose(2, 3)
    delta = (out * grads).sum(-1, keepdim=True)
    noise = (out * grads).square().sum(-1, keepdim=True)
    bent = p * slope
    ds = bent * (dp - delta)
    # What float32 adds up before dP - delta cancels.
    bulk = bent * (
        grads.abs() @ values.abs().transpose(2, 3) + (out * grads).abs().sum(-1, keepdim=True)
    )
    pairs = seen.double().expand_as(p)
    across = ds.transpose(2, 3)
    return (
        (
            scale * (ds @ keys),
            scale**2 * (ds.square() @ keys.square() + noise * (bent @ keys).square()),
            scale * (bulk @ keys.abs()),
            pairs @ keys.square(),
        ),
        (
            scale * (across @ queries),
            scale**2
            * (
                across.square() @ queries.square()
                + bent.square().transpose(2, 3) @ (noise * queries.square())
            ),
            scale * (bulk.transpose(2, 3) @ queries.abs()),
            pairs.transpose(2, 3) @ queries.square(),
        ),
        (
            p.transpose(2, 3) @ grads,
            p.square().transpose(2, 3) @ grads.square(),
            p.transpose(2, 3) @ grads.abs(),
            pairs.transpose(2, 3) @ grads.square(),
        ),
    )


def _gradient(terms: list[Tensor], group: int) -> Gradient:
    """Sum the heads of each group, and their variances; a kernel may round each head's share."""
    value, spread, magnitude, squares = terms
    if group > 1:
        spread = spread + value.square()
    summed = [
        x.unflatten(1, (-1, group)).sum(2).transpose(1, 2)
        for x in (value, spread, magnitude, squares)
    ]
    return Gradient(*summed)
