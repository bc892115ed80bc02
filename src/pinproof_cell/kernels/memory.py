"""How the kernels see memory: tensors as views of four axes, sequences by where they begin."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: N803  (constants of a Triton kernel are upper case by custom)
# No `from __future__ import annotations`: Triton reads the annotation `tl.constexpr` itself.

from typing import Any, NamedTuple

import triton.language as tl
from torch import Tensor

from pinproof_cell.kernels.launch import helper


class View(NamedTuple):
    """A tensor (batch, row, head, column): where it begins, and the strides of its axes.

    A kernel takes it as one argument. A stride of 1 is a constant for it, a multiple of 16 known
    as such: that is what makes wide loads possible.
    """

    data: Any
    batch: Any
    row: Any
    head: Any
    column: Any


def view(x: Tensor) -> View:
    """Return a tensor of four axes as a kernel takes it."""
    return View(x, *x.stride())


class Batch(NamedTuple):
    """Where the sequences of a batch lie; see `pinproof_cell.layout.Layout`.

    Everything is None where it says nothing: `starts_q` where all have equally many queries,
    `lengths_k` likewise, `starts_k` where keys begin at row 0. With a `table` of pages, whose rows
    are `most` numbers apart, a view of keys is (page, row of it, head, column).
    """

    starts_q: Any = None
    lengths_k: Any = None
    starts_k: Any = None
    table: Any = None
    most: Any = None
    page: Any = None


@helper
def at(x, b, rows, h, columns):
    """Return pointers to x[b, rows, h, columns]: every product with a stride is 64 bit."""
    return (
        x.data
        + tl.cast(b, tl.int64) * x.batch
        + tl.cast(rows, tl.int64) * x.row
        + tl.cast(h, tl.int64) * x.head
        + tl.cast(columns, tl.int64) * x.column
    )


@helper
def load(
    pointers, inside, columns,
    MASKED: tl.constexpr, UPCAST: tl.constexpr, HEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Load a tile, in float32 if UPCAST.

    Columns from `HEAD` on, and where MASKED all that is not `inside`, read as 0.
    """
    if MASKED and HEAD != BLOCK:
        tile = tl.load(pointers, mask=inside & (columns < HEAD), other=0.0)
    elif MASKED:
        tile = tl.load(pointers, mask=inside, other=0.0)
    elif HEAD != BLOCK:
        tile = tl.load(pointers, mask=columns < HEAD, other=0.0)
    else:
        tile = tl.load(pointers)
    if UPCAST:
        tile = tile.to(tl.float32)
    return tile


@helper
def sequence(batch, b, seqlen_q, seqlen_k):
    """Return where the queries of sequence `b` begin and how many they are, then of its keys.

    `seqlen_q` and `seqlen_k` are those of a batch whose lengths are equal.
    """
    first_q, first_k = 0, 0
    if batch.starts_q is not None:
        first_q = tl.load(batch.starts_q + b)
        seqlen_q = tl.load(batch.starts_q + b + 1) - first_q
    if batch.lengths_k is not None:
        seqlen_k = tl.load(batch.lengths_k + b)
    if batch.starts_k is not None:
        first_k = tl.load(batch.starts_k + b)
    return first_q, seqlen_q, first_k, seqlen_k


@helper
def key_base(x, batch, b, first_k, lanes, h, columns):
    """Return pointers to the first tile of keys of a sequence, or to row 0 of page 0."""
    if batch.table is None:
        pointers = at(x, b, first_k + lanes, h, columns)
    else:
        pointers = at(x, 0, 0, h, columns)
    return pointers


@helper
def key_place(batch, b, keys, end):
    """Return the page of each key, and its row there; 0 where keys are not in pages."""
    page, row = 0, 0
    if batch.table is not None:
        entries = batch.table + b * batch.most + keys // batch.page
        page = tl.load(entries, mask=keys < end, other=0).to(tl.int64)
        row = (keys % batch.page).to(tl.int64)
    return page, row


@helper
def key_offset(x, batch, start, page, row, AXIS: tl.constexpr):
    """Return how far the tile of keys from `start` on lies behind `key_base`.

    That is one number, or in pages one for each key, with a new axis `AXIS` beside the keys'.
    """
    if batch.table is None:
        offset = tl.cast(start, tl.int64) * x.row
    else:
        offset = tl.expand_dims(page * x.batch + row * x.row, AXIS)
    return offset
