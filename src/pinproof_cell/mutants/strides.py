"""Mutants of strides and offsets: views read in another way than they lie, 32 bits too few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.mutants.mutant import Family

Strides = Callable[[Tensor, Call], Sequence[int]]


def reread(x: Tensor, strides: Sequence[int], wrap: int = 0) -> Tensor:
    """Return what a kernel reads of `x` that takes `strides` for its own.

    Offsets are taken modulo `wrap`, where that is not 0, and then never leave the memory of `x`.
    """
    offsets = torch.zeros(x.shape, dtype=torch.int64)
    for axis, (size, stride) in enumerate(zip(x.shape, strides, strict=True)):
        shape = [-1 if other == axis else 1 for other in range(x.dim())]
        offsets += (torch.arange(size) * stride).reshape(shape)
    memory = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
    everything = x.as_strided((memory,), (1,))
    return everything[(offsets % wrap if wrap else offsets) % max(memory, 1)]


def contiguous(x: Tensor, call: Call | None = None) -> list[int]:
    """Return the strides of a contiguous tensor of this shape."""
    strides, step = [], 1
    for size in reversed(x.shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def _packed_heads(x: Tensor, call: Call) -> list[int]:
    """Return the strides with the heads of a row beside each other."""
    return [*x.stride()[:-2], x.shape[-1], x.stride(-1)]


def _unit_last(x: Tensor, call: Call) -> list[int]:
    return [*x.stride()[:-1], 1]


def _of_k(x: Tensor, call: Call) -> Sequence[int]:
    return call.k.stride()


def _of_q(x: Tensor, call: Call) -> Sequence[int]:
    return call.q.stride() if call.q.dim() == x.dim() else x.stride()


def _broadcast_lost(x: Tensor, call: Call) -> Sequence[int]:
    """Return contiguous strides where a dimension is broadcast."""
    return contiguous(x, call) if 0 in x.stride() else x.stride()


def _plain(x: Tensor, call: Call) -> Sequence[int]:
    return x.stride()


def _ragged_contiguous(x: Tensor, call: Call) -> Sequence[int]:
    """Return contiguous strides for packed rows, pages and caches alone."""
    return x.stride() if call.layout is None else contiguous(x)


def _read(*names: str, strides: Strides, wrap: int = 0) -> Callable[[Call], Call]:
    """Return a step that reads some of q, k and v by other strides."""

    def ask(call: Call) -> Call:
        given = {name: getattr(call, name) for name in names}
        return replace(
            call, **{name: reread(x, strides(x, call), wrap) for name, x in given.items()}
        )

    return ask


_stride = Family(name="strides")
_view = Family(name="strides", needs=("view",))

MUTANTS = (
    _view(
        "strides-ignored",
        "B62",
        "views read as if contiguous",
        ask=_read("q", "k", "v", strides=contiguous),
    ),
    _view(
        "ragged-strides-ignored",
        "B62",
        "packed rows and pages read as if contiguous",
        ask=_read("q", "k", "v", strides=_ragged_contiguous),
        needs=("ragged",),
    ),
    _view(
        "head-stride-assumed",
        "B62",
        "heads taken to lie beside each other",
        ask=_read("q", "k", "v", strides=_packed_heads),
    ),
    _view(
        "last-stride-assumed",
        "B62",
        "the last stride taken for 1",
        ask=_read("q", "k", "v", strides=_unit_last),
    ),
    _view(
        "broadcast-read-as-whole",
        "B60",
        "strides of 0 taken for contiguous",
        ask=_read("k", "v", strides=_broadcast_lost),
    ),
    _stride(
        "v-by-strides-of-k", "B37", "V read with the strides of K", ask=_read("v", strides=_of_k)
    ),
    _stride(
        "k-by-strides-of-q", "B61", "K read with the strides of Q", ask=_read("k", strides=_of_q)
    ),
    *(
        _stride(
            f"{name}-offsets-wrap",
            bug,
            f"offsets of {name} in 32 bits",
            ask=_read(name, strides=_plain, wrap=2**31),
            needs=("far",),
        )
        for name, bug in (("q", "B63"), ("k", "B65"), ("v", "B65"))
    ),
)
