"""Mutants of pages: the wrong page, the wrong row of the block table, what lies behind the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.layout import Layout
from pinproof_cell.mutants.emulation import HONEST, Memory
from pinproof_cell.mutants.emulation.memory import in_pages, keys, locate
from pinproof_cell.mutants.emulation.softmax import Partial
from pinproof_cell.mutants.mutant import Family
from pinproof_cell.mutants.strides import reread

Pages = Callable[[Tensor, int, Tensor, int], Tensor]
"""From block table, sequence, places of keys and page size to rows of the flattened pages."""


def _found(pages: Pages) -> Callable[[Layout, int, Tensor, Tensor], Tensor]:
    """Return where a kernel reads that finds pages in another way; it stays inside."""

    def elsewhere(layout: Layout, index: int, places: Tensor, x: Tensor) -> Tensor:
        if layout.block_table is None:
            return locate(layout, index, places, x)
        rows = pages(layout.block_table, index, places, x.shape[1])
        return rows % (x.shape[0] * x.shape[1])

    return elsewhere


def _pages(pages: Pages) -> Memory:
    return Memory(of_k=_found(pages), of_v=_found(pages))


def _length(count: Callable[[int, int], int]) -> Memory:
    """Return the memory of a kernel that counts the keys otherwise, from their number and page."""

    def read(layout: Layout, index: int, page: int) -> int:
        length = keys(layout, index, page)
        return length if layout.block_table is None else count(length, page)

    return Memory(keys=read)


def _next_page(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    return in_pages(table[index] + 1, places, page)


def _in_order(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    """Take the pages of a sequence to lie one after the other, as those of all do."""
    return index * table.shape[1] * page + places


def _after_first(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    """Take the pages of a sequence to follow its first."""
    return int(table[index, 0]) * page + places


def _of_next(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    return in_pages(table[(index + 1) % table.shape[0]], places, page)


def _of_first(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    return in_pages(table[0], places, page)


def _narrow_table(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    """Take the rows of the table to be as wide as this sequence needs."""
    needed = -(-places.shape[0] // page)
    entries = table.flatten()
    return in_pages(entries[(index * needed + torch.arange(needed)) % len(entries)], places, page)


def _overshoot(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    """Look up a page once per tile of keys, and read on behind its end."""
    first = places // HONEST.block * HONEST.block
    return in_pages(table[index], first, page) + places - first


def _of_sixteen(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    """Take a page for one of 16 rows."""
    row = table[index]
    return in_pages(row[torch.arange(-(-places.shape[0] // 16)) % len(row)], places, 16)


def _last_page_again(table: Tensor, index: int, places: Tensor, page: int) -> Tensor:
    """Read the page before the last twice."""
    last = max(-(-places.shape[0] // page) - 2, 0)
    return in_pages(table[index], places.clamp_max(last * page + page - 1), page)


def _tail_lost(length: int, page: int) -> int:
    """Return the length where a full last page is taken for an empty one."""
    return length - page if length and length % page == 0 else length


def _heads_outside(x: Tensor, call: Call) -> tuple[int, ...]:
    """Return the strides of pages (heads, page, headdim) for pages (page, heads, headdim)."""
    _, page, heads, dim = x.shape
    return (page * heads * dim, dim, page * dim, 1)


def _exchanged(call: Call) -> Call:
    if call.layout is None or call.layout.block_table is None:
        return call
    k, v = (reread(x, _heads_outside(x, call)) for x in (call.k, call.v))
    return replace(call, k=k, v=v)


def _tail_times_zero(name: str) -> Callable[..., Partial]:
    """Return a kernel that reads the last page of a sequence to the end and weighs by 0.

    What lies there in `name`, "k" or "v", reaches the answer where 0 times it is not 0.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Partial:
        out, lse = HONEST(q, k, v, **rest)
        layout, x = rest.get("layout"), {"k": k, "v": v}[name]
        if layout is None or layout.block_table is None:
            return out, lse
        for index, (begin, end) in enumerate(layout.rows()):
            last, used = divmod(int(layout.lengths_k[index]) - 1, x.shape[1])
            if last < 0:
                continue
            tail = x[int(layout.block_table[index, last]), used + 1 :]
            nothing = float((tail.float() * 0).sum())
            out[begin:end] += nothing
            if name == "k":
                lse[:, begin:end] += nothing
        return out, lse

    return attend


_page = Family(name="paging", needs=("paged",))

MUTANTS = (
    _page("page-next", "B36", "the page behind the one that is named", memory=_pages(_next_page)),
    _page("page-table-ignored", "B36", "pages taken in order", memory=_pages(_in_order)),
    _page(
        "page-first-alone", "B36", "pages taken to follow the first", memory=_pages(_after_first)
    ),
    _page("page-row-of-next", "B39", "the neighbour's row of the table", memory=_pages(_of_next)),
    _page("page-row-of-first", "B39", "the first row of the table", memory=_pages(_of_first)),
    _page(
        "page-row-narrow",
        "B39",
        "rows of the table by the pages needed, not its width",
        memory=_pages(_narrow_table),
    ),
    _page("page-overshoot", "B38", "one page for a whole tile", memory=_pages(_overshoot)),
    _page("page-of-sixteen", "B38", "pages taken for 16 rows", memory=_pages(_of_sixteen)),
    _page(
        "page-before-last-twice",
        "B38",
        "the last page is not turned to",
        memory=_pages(_last_page_again),
    ),
    _page("page-values-in-order", "B37", "V alone in order", memory=Memory(of_v=_found(_in_order))),
    _page(
        "page-tail-read",
        "B38",
        "the last page is read to its end",
        memory=_length(lambda length, page: -(-length // page) * page),
    ),
    _page(
        "page-tail-dropped",
        "B30",
        "a last page that is not full is left out",
        memory=_length(lambda length, page: length // page * page),
    ),
    _page("page-full-lost", "B38", "a full last page counts as empty", memory=_length(_tail_lost)),
    _page("page-heads-outside", "B37", "heads and rows of a page exchanged", ask=_exchanged),
    _page(
        "tail-of-v-times-zero",
        "B47",
        "0 times what lies behind the end of V",
        function=_tail_times_zero("v"),
    ),
    _page(
        "tail-of-k-times-zero",
        "B47",
        "0 times what lies behind the end of K",
        function=_tail_times_zero("k"),
    ),
)
