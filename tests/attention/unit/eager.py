"""A correct provider of every feature: eager attention in float64, rounded once at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.oracle import lowprecision
from pinproof_cell.suite.cases import FEATURES


def drawn(call: Call) -> Tensor | None:
    """Draw what dropout leaves in from torch's generator, as a kernel does."""
    if not call.dropout:
        return None
    if call.layout is None:
        shape = (call.q.shape[0], call.q.shape[2], call.q.shape[1], call.k.shape[1])
    else:
        shape = (1, call.q.shape[1], call.q.shape[0], call.layout.max_k)
    return torch.rand(shape) >= call.dropout


def eager(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    call = Call(q=q, k=k, v=v, **rest)
    truth = oracle.attention(call, drawn(call))
    out = truth.out.to(q.dtype).reshape(*q.shape[:-1], v.shape[-1])
    lse = truth.lse.float()
    return out, lse if call.layout is None else lse[0]


def backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, **rest: Any
) -> tuple[Tensor, ...]:
    call = Call(q=q, k=k, v=v, **rest)
    exact = replace(call, q=q.double(), k=k.double(), v=v.double())
    found = lowprecision.gradients(dout.double(), exact, drawn(call))
    return tuple(x.to(q.dtype) for x in found)


eager.supports = FEATURES  # type: ignore[attr-defined]
eager.backward = backward  # type: ignore[attr-defined]
