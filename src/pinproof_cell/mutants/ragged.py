"""Mutants of packed sequences and padded caches: lengths, starts and offsets of the wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.layout import Layout
from pinproof_cell.mutants.emulation import Memory, Problem, changed
from pinproof_cell.mutants.emulation.memory import locate, queries
from pinproof_cell.mutants.emulation.softmax import Partial
from pinproof_cell.mutants.mutant import Attention, Family


def _length(layout: Layout, index: int) -> int:
    return queries(layout, index).shape[0]


def _keys(layout: Layout, index: int) -> int:
    """Return how many keys a sequence has."""
    return int(layout.lengths_k[index])


def _early(layout: Layout, index: int) -> Tensor:
    """Return the query rows of a sequence, each sequence beginning as much earlier as its place."""
    return (queries(layout, index) - index).clamp_min(0)


def _of_next(layout: Layout, index: int) -> Tensor:
    """Return as many rows as the sequence has, from where the next one begins."""
    total = int(layout.starts_q[-1])
    return (int(layout.starts_q[index + 1]) + torch.arange(_length(layout, index))) % max(total, 1)


def _padded(layout: Layout, index: int) -> Tensor:
    """Return the rows as if every sequence took the place of the longest."""
    total = int(layout.starts_q[-1])
    return (index * layout.max_q + torch.arange(_length(layout, index))) % max(total, 1)


def _keys_of(choose: Callable[[Layout, int], int]) -> Memory:
    """Return the memory of a kernel that takes another number of keys; reads stay inside."""

    def inside(layout: Layout, index: int, places: Tensor, x: Tensor) -> Tensor:
        if layout.block_table is not None:
            places = places % (layout.block_table.shape[1] * x.shape[1])
        rows = x.shape[0] if x.dim() == 3 else x.shape[0] * x.shape[1]
        return locate(layout, index, places, x) % rows

    return Memory(
        keys=lambda layout, index, page: max(choose(layout, index), 0), of_k=inside, of_v=inside
    )


def _start_of(starts: Callable[[Layout, int], Tensor]) -> Memory:
    """Return the memory of a kernel that begins to read packed keys elsewhere."""

    def elsewhere(layout: Layout, index: int, places: Tensor, x: Tensor) -> Tensor:
        if layout.starts_k is None:
            return locate(layout, index, places, x)
        return (int(starts(layout, index)) + places) % x.shape[0]

    return Memory(of_k=elsewhere, of_v=elsewhere)


def _padding(of: Callable[[Tensor, int], int]) -> Memory:
    """Return the memory of a kernel that takes another padding of a cache."""

    def elsewhere(layout: Layout, index: int, places: Tensor, x: Tensor) -> Tensor:
        if layout.left_padding is None:
            return locate(layout, index, places, x)
        return index * x.shape[1] + (of(layout.left_padding, index) + places) % x.shape[1]

    return Memory(of_k=elsewhere, of_v=elsewhere)


def _neighbour(lengths: Tensor, index: int) -> int:
    return int(lengths[(index + 1) % lengths.shape[0]])


def _past_end(layout: Layout, index: int) -> int:
    """Return the length that lies one entry behind; behind the last there is nothing."""
    return _keys(layout, index + 1) if index + 1 < layout.batch else 0


def _without_padding(layout: Layout, index: int) -> int:
    padding = 0 if layout.left_padding is None else int(layout.left_padding[index])
    return _keys(layout, index) - padding


def _longest_offset(problem: Problem) -> Problem:
    most_queries, most_keys = problem.longest
    return replace(problem, offset=most_keys - most_queries)


def _first_slopes(call: Call) -> Call:
    slopes = call.alibi_slopes
    if slopes is None or slopes.dim() == 1:
        return call
    return replace(call, alibi_slopes=slopes[:1].expand_as(slopes))


def _empty_is_nan(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    return (out, lse) if problem.keys else (out * torch.nan, lse * torch.nan)


def _lost_from(count: int) -> Callable[[Tensor, Tensor, Problem], Partial]:
    """Return a step that leaves the rows of sequence `count` and on as they were."""

    def finish(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
        return (out, lse) if problem.sequence < count else (out * torch.nan, lse * torch.nan)

    return finish


def _unwritten_in_splits(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
    lost = problem.sequence and problem.splits > 1
    return (out * torch.nan, lse) if lost else (out, lse)


def _stale_empty() -> Attention:
    """Return a kernel in which a sequence without keys gets what the one before it left."""
    left: list[Partial] = []

    def finish(out: Tensor, lse: Tensor, problem: Problem) -> Partial:
        if problem.keys or not left or not left[-1][1].shape[2]:
            left.append((out, lse))
            return out, lse
        rows = torch.arange(problem.queries) % left[-1][1].shape[2]
        return left[-1][0][:, :, rows], left[-1][1][:, :, rows]

    return changed(finish=finish)


_packed = Family(name="ragged", needs=("ragged",))

MUTANTS = (
    _packed("varlen-q-early", "B04", "a wrong offset of q", memory=Memory(queries=_early)),
    _packed(
        "varlen-q-as-padded",
        "B04",
        "q read as if each sequence were the longest",
        memory=Memory(queries=_padded),
    ),
    _packed(
        "varlen-output-of-next",
        "B31",
        "rows written where the next sequence begins",
        memory=Memory(outputs=_of_next),
    ),
    _packed(
        "varlen-lse-of-next",
        "B25",
        "the LSE written where that of the next begins",
        memory=Memory(sums=_of_next),
    ),
    _packed("varlen-lse-as-padded", "B26", "the LSE strided by max_q", memory=Memory(sums=_padded)),
    _packed(
        "length-of-longest",
        "B40",
        "max_k keys in every sequence",
        memory=_keys_of(lambda layout, index: layout.max_k),
    ),
    _packed(
        "length-of-first",
        "B40",
        "the length of sequence 0 for all",
        memory=_keys_of(lambda layout, index: _keys(layout, 0)),
    ),
    _packed("length-of-next", "B11", "lengths read one entry too far", memory=_keys_of(_past_end)),
    _packed(
        "length-of-queries",
        "B40",
        "as many keys as queries",
        memory=_keys_of(_length),
    ),
    _packed(
        "length-one-more",
        "",
        "`<=` for `<` at a sequence's end",
        memory=_keys_of(lambda layout, index: _keys(layout, index) + 1),
    ),
    _packed(
        "length-one-less",
        "",
        "one key too few in each sequence",
        memory=_keys_of(lambda layout, index: _keys(layout, index) - 1),
    ),
    _packed(
        "varlen-starts-of-queries",
        "B40",
        "keys begin where the queries do",
        memory=_start_of(lambda layout, index: layout.starts_q[index]),
        needs=("varlen",),
    ),
    _packed(
        "varlen-starts-as-padded",
        "B40",
        "keys begin at multiples of max_k",
        memory=_start_of(lambda layout, index: torch.tensor(index * layout.max_k)),
        needs=("varlen",),
    ),
    _packed(
        "diagonal-of-longest", "B40", "the offset of the longest sequence", prepare=_longest_offset
    ),
    _packed("slopes-of-first", "B54", "slopes of sequence 0 for all", ask=_first_slopes),
    _packed("empty-sequence-is-nan", "B29", "no keys at all divide by zero", finish=_empty_is_nan),
    _packed("empty-sequence-stale", "B43", "no keys leave an older part", make=_stale_empty),
    _packed("sequences-lost", "B31", "no rows behind the third sequence", finish=_lost_from(3)),
    _packed("sequences-from-32-lost", "B31", "sequences behind a warp", finish=_lost_from(32)),
    _packed(
        "split-sequences-unwritten",
        "B31",
        "splits write the first sequence alone",
        finish=_unwritten_in_splits,
        needs=("splits",),
    ),
    _packed(
        "padding-ignored",
        "",
        "a cache read from its first row",
        memory=_padding(lambda padding, index: 0),
        needs=("left-padding",),
    ),
    _packed(
        "padding-of-first",
        "",
        "the padding of sequence 0 for all",
        memory=_padding(lambda padding, index: int(padding[0])),
        needs=("left-padding",),
    ),
    _packed(
        "padding-of-next",
        "",
        "the padding of the neighbour",
        memory=_padding(_neighbour),
        needs=("left-padding",),
    ),
    _packed(
        "padding-one-short",
        "",
        "one row of padding too few",
        memory=_padding(lambda padding, index: int(padding[index]) - 1),
        needs=("left-padding",),
    ),
    _packed(
        "length-counts-padding",
        "B40",
        "lengths taken to include the padding",
        memory=_keys_of(_without_padding),
        needs=("left-padding",),
    ),
)
