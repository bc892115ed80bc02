"""The oracle of the gradients: eager backward attention in float64 on the same inputs."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle import rounding
from pinproof_cell.oracle.forward import CHUNK, ends_of_p, kept, largest, visible


@dataclass(frozen=True)
class Gradient:
    """One gradient in float64, and what a correct kernel's rounding of it depends on.

    All are of the gradient's shape, (batch, seqlen, nheads, headdim). ``spread`` is the variance in
    units of u^2/3 that comes before the last rounding: of P and dS rounded to the input type, of
    delta = O dO from an O that was rounded, as was the P that it is made of, and of each query
    head's share where a group sums several.
    ``magnitude`` is the sum of absolute products, which bounds errors of float32 accumulation;
    ``tail`` the sum over the visible pairs of the squares of what a change of P, dS or O, however
    small these are, changes. Where it is 0 the gradient is exactly 0: nobody sees that row.
    """

    value: Tensor
    spread: Tensor
    magnitude: Tensor
    tail: Tensor


@dataclass(frozen=True)
class Truth:
    """The gradients of q, k and v.

    ``largest_logit`` is the largest visible |logit|, ``logit_error`` what `oracle.rounding` says.
    """

    dq: Gradient
    dk: Gradient
    dv: Gradient
    largest_logit: float
    logit_error: float
    seqlen: int


def backward(dout: Tensor, call: Call, keep: Tensor | None = None) -> Truth:
    """Differentiate `pinproof_cell.oracle.forward.attention`, given the gradient of its output.

    `keep` and a ragged call are as there: the truths of packed sequences are that of a batch of
    one. Raises NotImplementedError where the keys of a ragged call are not packed.
    """
    if call.layout is None:
        return _dense(dout, call, keep)
    if call.layout.starts_k is None:
        raise NotImplementedError("gradients of keys in pages, or in a padded cache")
    parts = zip(call.layout.rows(), call.sequences(), kept(call, keep), strict=True)
    return _joined([_dense(dout[None, a:b], sequence, own) for (a, b), sequence, own in parts])


def _joined(truths: list[Truth]) -> Truth:
    """Return the truths of single sequences as that of one batch, row after row."""
    names, terms = ("dq", "dk", "dv"), [term.name for term in fields(Gradient)]
    rows = {
        name: Gradient(
            *(torch.cat([getattr(getattr(x, name), term) for x in truths], 1) for term in terms)
        )
        for name in names
    }
    return Truth(
        **rows,
        largest_logit=max(truth.largest_logit for truth in truths),
        logit_error=max(truth.logit_error for truth in truths),
        seqlen=max(truth.seqlen for truth in truths),
    )


def _dense(dout: Tensor, call: Call, keep: Tensor | None) -> Truth:
    batch, seqlen_q, heads, _ = call.q.shape
    seqlen_k, group = call.k.shape[1], heads // call.k.shape[2]
    queries, outs = call.q.double().transpose(1, 2), dout.double().transpose(1, 2)
    keys = call.k.double().transpose(1, 2).repeat_interleave(group, 1)
    values = call.v.double().transpose(1, 2).repeat_interleave(group, 1)
    of_queries: list[tuple[Tensor, ...]] = []
    of_keys = [torch.zeros_like(keys) for _ in range(4)]
    of_values = [torch.zeros_like(values) for _ in range(4)]
    logit, product = 0.0, 0.0
    step = max(1, CHUNK // max(1, batch * heads * seqlen_k))
    for start in range(0, seqlen_q, step):
        some, grads = queries[:, :, start : start + step], outs[:, :, start : start + step]
        rows = _rows(call, some @ keys.transpose(2, 3), start, keep)
        logit = max(logit, rows.largest_logit)
        product = max(product, rows.largest_product)
        for_queries, for_keys, for_values = _chunk(rows, some, grads, keys, values, call.scale)
        of_queries.append(for_queries)
        for total, part in zip(of_keys + of_values, for_keys + for_values, strict=True):
            total += part
    joined = [torch.cat(column, 2) for column in zip(*of_queries, strict=True)]
    empty = [torch.zeros_like(queries) for _ in range(4)]
    return Truth(
        dq=_gradient(joined or empty, 1),
        dk=_gradient(of_keys, group),
        dv=_gradient(of_values, group),
        largest_logit=logit,
        logit_error=rounding.of_logits(call, logit, product),
        seqlen=max(seqlen_q, seqlen_k),
    )


@dataclass(frozen=True)
class _Rows:
    """P of some rows, the derivative of its softcap, which keys they see, and dropout's factor.

    ``weights`` is 0 or 1 / (1 - probability), ``loudest`` the latter; both are 1 without dropout.
    ``roundings`` is how often P is rounded, with dropout before and after it is weighed, and
    ``left`` the sum of the squares of what then multiplies the end of its range.
    """

    p: Tensor
    bend: Tensor
    seen: Tensor
    weights: Tensor
    loudest: float
    roundings: int
    left: Tensor
    largest_logit: float
    largest_product: float


def _rows(call: Call, products: Tensor, start: int, keep: Tensor | None) -> _Rows:
    """Return the rows from `start` on, given their products with all keys."""
    device, (batch, heads, count, seqlen_k) = products.device, products.shape
    own = torch.arange(start, start + count, device=device)[:, None] + seqlen_k - call.q.shape[1]
    distance = own - torch.arange(seqlen_k, device=device)
    seen = visible(distance, call.limits)
    scores, bend = products * call.scale, products.new_ones(())
    if call.softcap:
        bent = torch.tanh(scores / call.softcap)
        scores, bend = call.softcap * bent, 1 - bent.square()
    if call.alibi_slopes is not None:
        slopes = call.alibi_slopes.double().expand(batch, heads)
        scores = scores - slopes[:, :, None, None] * distance.abs()
    lse = torch.logsumexp(scores.masked_fill(~seen, -torch.inf), -1, keepdim=True)
    if call.sinks is not None:
        lse = torch.logaddexp(lse, call.sinks.double()[None, :, None, None])
    p = torch.exp(scores - lse.masked_fill(lse.isneginf(), 0.0)).masked_fill(~seen, 0.0)
    loudest, weights = 1.0, products.new_ones(())
    if keep is not None:
        loudest = 1 / (1 - call.dropout)
        weights = keep[:, :, start : start + count].double() * loudest
    return _Rows(
        p=p,
        bend=bend,
        seen=seen,
        weights=weights,
        loudest=loudest,
        roundings=1 if keep is None else 2,
        left=seen * ends_of_p(None if keep is None else weights),
        largest_logit=largest(scores, seen),
        largest_product=largest(products * call.scale, seen),
    )


def _chunk(
    rows: _Rows, queries: Tensor, grads: Tensor, keys: Tensor, values: Tensor, scale: float
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return value, spread, magnitude and tail of dQ, and what these rows add to dK and dV.

    Inside: p after dropout, dp = dO V^T before it, ds the gradient of the scaled product,
    bent = P bend; noise is the variance of delta, in units of u^2/3: O was rounded, and
    before it the P that it was made of, an error of which moves delta by dP times it. So do
    their tails: lost is what a change of each, however small, changes of delta, squared.
    """
    p = rows.p * rows.weights
    out = p @ values
    towards = grads @ values.transpose(2, 3)
    dp = towards * rows.weights
    delta = (out * grads).sum(-1, keepdim=True)
    noise = (out * grads).square().sum(-1, keepdim=True)
    noise += rows.roundings * (rows.p * dp).square().sum(-1, keepdim=True)
    lost = grads.square().sum(-1, keepdim=True)
    lost += (rows.left * towards.square()).sum(-1, keepdim=True)
    bent = rows.p * rows.bend
    ds = bent * (dp - delta)
    # What float32 adds up before dP - delta cancels, and 1 - tanh^2, which is what bends P.
    bulk = rows.p * (
        grads.abs() @ values.abs().transpose(2, 3) * rows.weights
        + (out * grads).abs().sum(-1, keepdim=True)
    )
    # A kernel may round P and dS before it divides by what dropout leaves; dS before or after it
    # is scaled; and P before dP - delta multiplies it. What is dropped adds nothing to dV.
    pairs = rows.seen.double().expand_as(p) * rows.loudest**2
    tails = pairs * (1 + scale**2) + rows.seen * (scale * rows.bend * (dp - delta)).square()
    across = ds.transpose(2, 3)
    return (
        (
            scale * (ds @ keys),
            scale**2 * (ds.square() @ keys.square() + noise * (bent @ keys).square()),
            scale * (bulk @ keys.abs()),
            tails @ keys.square() + scale**2 * lost * (bent @ keys).square(),
        ),
        (
            scale * (across @ queries),
            scale**2
            * (
                across.square() @ queries.square()
                + bent.square().transpose(2, 3) @ (noise * queries.square())
            ),
            scale * (bulk.transpose(2, 3) @ queries.abs()),
            tails.transpose(2, 3) @ queries.square()
            + scale**2 * (bent.square().transpose(2, 3) @ (lost * queries.square())),
        ),
        (
            p.transpose(2, 3) @ grads,
            p.square().transpose(2, 3) @ grads.square(),
            p.transpose(2, 3) @ grads.abs(),
            rows.left.expand_as(p).transpose(2, 3) @ grads.square(),
        ),
    )


def _gradient(terms: list[Tensor], group: int) -> Gradient:
    """Sum the heads of each group, and their variances; a kernel may round each head's share."""
    value, spread, magnitude, tail = terms
    if group > 1:
        spread = spread + value.square()
    summed = [
        x.unflatten(1, (-1, group)).sum(2).transpose(1, 2) for x in (value, spread, magnitude, tail)
    ]
    return Gradient(*summed)
