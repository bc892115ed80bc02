"""One batch in another layout, for kernels that know no dense one: packed rows, or pages."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call
    from pinproof_cell.layout import Layout


def packed(call: Call) -> tuple[Call, Layout]:
    """Return a dense call with its sequences packed one after the other; a ragged one as it is."""
    from pinproof_cell.layout import Layout

    if call.layout is not None:
        return call, call.layout
    batch, seqlen_q = call.q.shape[:2]
    seqlen_k = call.k.shape[1]
    q, k, v = (x.flatten(0, 1) for x in (call.q, call.k, call.v))
    layout = Layout(
        starts_q=_steps(batch + 1, seqlen_q, call.q),
        lengths_k=_steps(batch, 0, call.q) + seqlen_k,
        max_q=seqlen_q,
        max_k=seqlen_k,
        starts_k=_steps(batch + 1, seqlen_k, call.q),
    )
    return replace(call, q=q, k=k, v=v, layout=layout), layout


def paged(call: Call, page: int) -> tuple[Call, Layout]:
    """Return a dense or packed call with its keys in pages of `page` rows; a paged one as it is.

    Keys that fill whole pages stay where they are; others are copied, with zeros behind them, as
    fresh cache memory has.
    """
    batch, layout = packed(call)
    if layout.starts_k is None:
        return batch, layout
    if call.layout is None:
        k, v = (_pages(x, page) for x in (call.k, call.v))
        table = _steps(k.shape[0], 1, call.q).reshape(layout.batch, -1)
    else:
        starts: list[int] = layout.starts_k.tolist()
        k, v = (_scattered(x, starts, page) for x in (call.k, call.v))
        table = _table(layout, page)
    layout = replace(layout, starts_k=None, block_table=table)
    return replace(batch, k=k, v=v, layout=layout), layout


def unpacked(out: Tensor, call: Call) -> Tensor:
    """Return a packed output (total_q, nheads, headdim) in the shape of `call`."""
    return out if call.layout is not None else out.unflatten(0, call.q.shape[:2])


def unpacked_lse(lse: Tensor, call: Call) -> Tensor:
    """Return a packed log-sum-exp (nheads, total_q) in the shape of `call`."""
    if call.layout is not None:
        return lse
    return lse.unflatten(1, call.q.shape[:2]).transpose(0, 1)


def equal_queries(call: Call) -> bool:
    """Say if every sequence of a ragged call has the same number of queries."""
    layout = call.layout
    return layout is not None and layout.max_q * layout.batch == call.q.shape[0]


def _steps(count: int, step: int, like: Tensor) -> Tensor:
    import torch

    return torch.arange(count, dtype=torch.int32, device=like.device) * step


def _pages(x: Tensor, page: int) -> Tensor:
    import torch

    missing = -x.shape[1] % page
    if missing:
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, missing))
    return x.unflatten(1, (-1, page)).flatten(0, 1)


def _scattered(x: Tensor, starts: list[int], page: int) -> Tensor:
    """Copy packed rows (total_k, heads, dim) into pages, sequence after sequence."""
    import torch

    parts = [_pages(x[begin:end][None], page) for begin, end in pairwise(starts) if end > begin]
    return torch.cat(parts) if parts else x.new_zeros(1, page, *x.shape[1:])


def _table(layout: Layout, page: int) -> Tensor:
    """Return the block table of `_scattered`; entries beyond a sequence name page 0."""
    numbers = [-(-length // page) for length in layout.lengths_k.tolist()]
    table = layout.lengths_k.new_zeros(len(numbers), max(1, *numbers, 0))
    first = 0
    for row, number in zip(table, numbers, strict=True):
        row[:number] = _steps(number, 1, table) + first
        first += number
    return table
