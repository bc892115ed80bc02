"""Mutants that compute well and break the contract of the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST, Kernel
from pinproof_cell.mutants.mutant import Family


def _into_q(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    """Write the output where q was."""
    out, lse = HONEST(q, k, v, **rest)
    return q.copy_(out), lse


def _scales_q(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    """Change q meanwhile, as a pre-scaling in place does."""
    out, lse = HONEST(q, k, v, **rest)
    q.mul_(0.5)
    return out, lse


def _float_output(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    out, lse = HONEST(q, k, v, **rest)
    return out.float(), lse


def _heads_first(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    out, lse = HONEST(q, k, v, **rest)
    return out.transpose(1, 2), lse


def _nan(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    out, lse = HONEST(q, k, v, **rest)
    return torch.full_like(out, torch.nan), lse


def _low_lse(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
    out, lse = HONEST(q, k, v, **rest)
    return out, lse.to(q.dtype) if q.dtype != torch.float32 else lse.double()


def _no_lse(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
    return HONEST(q, k, v, **rest)[0]


def _repeated(x: Tensor, dq: Tensor) -> Tensor:
    return x.repeat_interleave(dq.shape[-2] // x.shape[-2], -2)


def _changed_gradient(edit: Callable[..., Any]) -> Kernel:
    """Return a kernel whose backward hands over what `edit` makes of dO and the gradients."""

    class Changed(Kernel):
        def backward(self, dout: Tensor, *tensors: Tensor, **rest: Any) -> Any:
            return edit(dout, super().backward(dout, *tensors, **rest))

    return Changed()


_breach = Family(name="contract")
_gradient = Family(name="contract", needs=("backward",))

MUTANTS = (
    _breach("output-in-q", "", "the output overwrites an input", function=_into_q),
    _breach("q-scaled-in-place", "", "an input is changed", function=_scales_q),
    _breach("output-in-float32", "", "the wrong type", function=_float_output),
    _breach("output-heads-first", "B78", "the wrong layout", function=_heads_first),
    _breach("lse-in-low-type", "", "the LSE in the wrong type", function=_low_lse),
    _breach("lse-missing", "", "the output alone", function=_no_lse),
    _breach("nan-everywhere", "B07", "uninitialised registers", function=_nan),
    _gradient(
        "grad-dout-scaled",
        "",
        "dO is changed",
        function=_changed_gradient(lambda dout, found: (dout.mul_(0.5), found)[1]),
    ),
    _gradient(
        "grad-in-float32",
        "",
        "the wrong type",
        function=_changed_gradient(lambda dout, found: tuple(x.float() for x in found)),
    ),
    _gradient(
        "grad-per-query-head",
        "B02",
        "dK and dV of every query head",
        function=_changed_gradient(
            lambda dout, found: (found[0], *(_repeated(x, found[0]) for x in found[1:]))
        ),
        needs=("gqa",),
    ),
    _gradient(
        "grad-missing",
        "",
        "dQ alone",
        function=_changed_gradient(lambda dout, found: found[0]),
    ),
)
