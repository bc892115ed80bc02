"""A backward kernel emulated in float64, whole or with one named defect; shares nothing with ours.

It rounds where a kernel does: the output behind delta, P, dS and each gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.grid import PLAIN

# Small products gain nothing from threads, and lose much where the machine is busy.
torch.set_num_threads(1)

#: Every shape once, in fp16 and peaked or in bf16 and diffuse by turns, and the edges.
SOME = tuple(
    case
    for index, case in enumerate(PLAIN)
    if case.seqlen_k and (index >= 48 or index % 4 == 1 + index // 4 % 2)
)


def gradients(case: Case, defect: str = "", seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return dQ, dK and dV of a case's inputs, rounded to its type."""
    drawn, dout = inputs.generate(case, seed, "cpu"), inputs.output_gradient(case, seed, "cpu")
    dtype = drawn.q.dtype
    inner = torch.bfloat16 if defect == "bf16 inside" else dtype
    group = case.heads // case.heads_k
    q, k, v, g = (x.double().transpose(1, 2) for x in (drawn.q, drawn.k, drawn.v, dout))
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    if defect == "strides of dO ignored":
        flat = torch.as_strided(dout, (dout.numel(),), (1,))
        g = flat.reshape(dout.shape).double().transpose(1, 2)
    scale = case.head_dim**-0.5 if case.scale is None else case.scale
    p, _ = probabilities(case, q, k, scale, drawn.alibi_slopes)
    delta = ((p @ v).to(dtype).double() * g).sum(-1, keepdim=True)
    bad, bend = p, torch.ones_like(p)
    if defect in ("window ignored", "causal top-left", "alibi ignored"):
        # The log-sum-exp is still that of the forward: P no longer sums to one.
        scores, seen = logits(case, q, k, scale, drawn.alibi_slopes, defect)
        lse = torch.logsumexp(hide(*logits(case, q, k, scale, drawn.alibi_slopes)), -1)
        bad = torch.exp(hide(scores, seen) - lse[..., None]).masked_fill(lse.isinf()[..., None], 0)
    if case.softcap and defect != "softcap derivative missing":
        bend = 1 - torch.tanh(q @ k.transpose(2, 3) * scale / case.softcap).square()
    if defect == "no delta":
        delta = torch.zeros_like(delta)
    if defect == "delta of the first tile":
        delta = delta[:, :, torch.arange(case.seqlen_q) % 64]
    ds = bad * bend * (g @ v.transpose(2, 3) - delta)
    ds, bad = ds.to(inner).double(), bad.to(inner).double()
    factor = {"scale twice": scale * scale, "scale missing": 1.0}.get(defect, scale)
    dk, dv = ds.transpose(2, 3) @ q * factor, bad.transpose(2, 3) @ g
    each = (x.unflatten(1, (case.heads_k, group)) for x in (dk, dv))
    dk, dv = (x[:, :, -1] if defect == "one head of a group" else x.sum(2) for x in each)
    return tuple(x.transpose(1, 2).to(dtype) for x in (ds @ k * factor, dk, dv))


def probabilities(
    case: Case, q: Tensor, k: Tensor, scale: float, slopes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return P and which keys each query sees."""
    scores, seen = logits(case, q, k, scale, slopes)
    return torch.softmax(hide(scores, seen), -1).nan_to_num(0.0), seen


def hide(scores: Tensor, seen: Tensor) -> Tensor:
    return scores.masked_fill(~seen, -torch.inf)


def logits(
    case: Case, q: Tensor, k: Tensor, scale: float, slopes: Tensor | None, defect: str = ""
) -> tuple[Tensor, Tensor]:
    """Return the logits (batch, nheads, seqlen_q, seqlen_k) and the mask."""
    shift = 0 if defect == "causal top-left" else case.seqlen_k - case.seqlen_q
    own = torch.arange(case.seqlen_q)[:, None] + shift
    ahead = torch.arange(case.seqlen_k) - own
    scores = q @ k.transpose(2, 3) * scale
    if case.softcap:
        scores = case.softcap * torch.tanh(scores / case.softcap)
    if slopes is not None and defect != "alibi ignored":
        scores = scores - slopes.double()[:, :, None, None] * ahead.abs()
    left, right = (-1, -1) if defect == "window ignored" else case.window
    seen = torch.ones_like(ahead, dtype=torch.bool)
    if left >= 0:
        seen &= ahead >= -left
    if case.causal or right >= 0:
        seen &= ahead <= (0 if case.causal else right)
    return scores, seen
