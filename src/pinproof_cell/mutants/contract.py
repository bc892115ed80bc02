"""Mutants that compute well and break the contract of the call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants import Attention, Mutant, always
from pinproof_cell.mutants.emulation import HONEST


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


def _breach(id: str, bug: str, stands_for: str, function: Attention) -> Mutant:  # noqa: A002
    return Mutant(id=id, family="contract", bug=bug, stands_for=stands_for, make=always(function))


MUTANTS = (
    _breach("output-in-q", "", "the output overwrites an input", _into_q),
    _breach("q-scaled-in-place", "", "an input is changed", _scales_q),
    _breach("output-in-float32", "", "the wrong type", _float_output),
    _breach("output-heads-first", "B78", "the wrong layout", _heads_first),
    _breach("nan-everywhere", "B07", "uninitialised registers", _nan),
)
