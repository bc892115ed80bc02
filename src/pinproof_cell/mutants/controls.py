"""Controls: unusual and correct kernels. A suite that rejects one of them is wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants import Attention, Mutant, always
from pinproof_cell.mutants.emulation import HONEST, changed, fold


def _reversed(cut: list[range], splits: int) -> list[list[range]]:
    return [cut[::-1]]


def _float_p(p: Tensor, dtype: torch.dtype) -> Tensor:
    return p


def _noisy_exp(logits: Tensor, anchor: Tensor) -> Tensor:
    """Return the exponential with a relative error of 2^-20 that depends on its bits."""
    p = torch.exp(logits - anchor[..., None])
    return p * (1 + torch.sin(p * 1e6) * 2.0**-20)


def _window_or_none(
    q: Tensor, k: Tensor, v: Tensor, *, window_size: tuple[int, int] = (-1, -1), **rest: Any
) -> tuple[Tensor, Tensor]:
    """Take a limit of 0 for none where only the number of tiles depends on it."""
    tiles = 1 + ((window_size[0] or k.shape[1]) + (window_size[1] or k.shape[1])) // 64
    kernel = changed(block=64 if tiles > 4 else 32)
    return kernel(q, k, v, window_size=window_size, **rest)


def _control(id: str, stands_for: str, function: Attention, bug: str = "") -> Mutant:  # noqa: A002
    return Mutant(
        id=id,
        family="control",
        bug=bug,
        stands_for=stands_for,
        make=always(function),
        control=True,
    )


MUTANTS = (
    _control("honest", "the emulation itself", HONEST),
    _control("p-in-float32", "P is not rounded", changed(fold=partial(fold, quantize=_float_p))),
    _control("keys-reversed", "tiles from the last to the first", changed(schedule=_reversed)),
    _control("splits-3", "three splits, merged", changed(splits=3)),
    _control("splits-7-of-16", "seven splits of small tiles", changed(splits=7, block=16)),
    _control("block-16", "tiles of 16 keys", changed(block=16)),
    _control("block-32", "tiles of 32 keys", changed(block=32)),
    _control("block-128", "tiles of 128 keys", changed(block=128)),
    _control(
        "noisy-exp", "an exponential good to 2^-20", changed(fold=partial(fold, weigh=_noisy_exp))
    ),
    _control("zero-is-no-window", "a wrong estimate of the work", _window_or_none, "B16"),
)
