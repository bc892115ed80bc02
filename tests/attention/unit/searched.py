"""Providers for the search: one that is right, and some that are wrong in one corner each."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle import backward as gradients
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite.cases import FEATURES


def right(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    call = Call(q=q, k=k, v=v, **arguments)
    truth = oracle.attention(call)
    out, lse = truth.out.to(q.dtype), truth.lse.float()
    return (out, lse) if call.layout is None else (out[0], lse[0])


def as_right(function: Any) -> Any:
    """Admit what `right` admits."""
    function.supports = FEATURES - {"dropout", "backward", "deterministic"}
    return function


as_right(right)


def blind_to_softcap(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    """Ignore softcap, and lose the last key of sequences longer than 70."""
    return right(q, k, v, **{**arguments, "softcap": 0.0})


blind_to_softcap.supports = {"bf16", "causal", "softcap", "gqa", "window"}  # type: ignore[attr-defined]


def mortal(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    """Die of ALiBi under a window."""
    if arguments["alibi_slopes"] is not None and arguments["window_size"] != (-1, -1):
        os.kill(os.getpid(), signal.SIGSEGV)
    return right(q, k, v, **arguments)


mortal.supports = {"bf16", "fp16", "alibi", "window"}  # type: ignore[attr-defined]


@as_right
def scaled(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    out, lse = right(q, k, v, **arguments)
    return (out.float() * 1.4).to(out.dtype), lse


@as_right
def shifted(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    out, lse = right(q, k, v, **arguments)
    return out, lse + 0.5


@as_right
def raising(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    raise RuntimeError("bad day")


@as_right
def losing(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@as_right
def busy(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")


@as_right
def in_float(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    out, lse = right(q, k, v, **arguments)
    return out.float(), lse


@as_right
def refusing(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    raise NotImplementedError("nothing at all")


def wrong_gradients(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    return right(q, k, v, **arguments)


def _halved(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **arguments: Any) -> Any:
    truth = gradients.backward(dout, Call(q=q, k=k, v=v, **arguments))
    pairs = zip(("dq", "dk", "dv"), (q, k, v), strict=True)
    return tuple(
        (0.5 * getattr(truth, name).value).reshape(x.shape).to(x.dtype) for name, x in pairs
    )


wrong_gradients.supports = FEATURES - {"dropout", "deterministic"}  # type: ignore[attr-defined]
wrong_gradients.backward = _halved  # type: ignore[attr-defined]


def half_dropped(
    q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0, **arguments: Any
) -> tuple[Tensor, Tensor]:
    """Leave keys out, and forget to divide by what that leaves."""
    call = Call(q=q, k=k, v=v, dropout=dropout, **arguments)
    layout = call.layout
    width = k.shape[1] if layout is None else layout.max_k
    rows = (q.shape[0], q.shape[2], q.shape[1]) if layout is None else (1, q.shape[1], q.shape[0])
    truth = oracle.attention(call, torch.rand(*rows, width) > dropout)
    out = (truth.out * (1 - dropout)).to(q.dtype)
    return (out, truth.lse.float()) if layout is None else (out[0], truth.lse[0].float())


half_dropped.supports = FEATURES - {"backward", "deterministic"}  # type: ignore[attr-defined]


def dropped_gradients(
    q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0, **arguments: Any
) -> tuple[Tensor, Tensor]:
    """Drop as one should; the gradients are half of what they should be."""
    call = Call(q=q, k=k, v=v, dropout=dropout, **arguments)
    truth = oracle.attention(call, _left_in(q, k, dropout))
    return truth.out.to(q.dtype), truth.lse.float()


def _left_in(q: Tensor, k: Tensor, dropout: float) -> Tensor:
    return torch.rand(q.shape[0], q.shape[2], q.shape[1], k.shape[1]) >= dropout


def _half_of_dropped(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, **arguments: Any
) -> Any:
    call = Call(q=q, k=k, v=v, **arguments)
    truth = gradients.backward(dout, call, _left_in(q, k, call.dropout))
    return tuple((0.5 * x.value).to(q.dtype) for x in (truth.dq, truth.dk, truth.dv))


dropped_gradients.supports = FEATURES - {"varlen", "paged", "left-padding"}  # type: ignore[attr-defined]
dropped_gradients.backward = _half_of_dropped  # type: ignore[attr-defined]
