"""Where the emulated kernel finds the sequences of a ragged call, and where it writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.layout import Layout
from pinproof_cell.mutants.emulation.problem import Problem, problem

Locate = Callable[[Layout, int, Tensor, Tensor], Tensor]
"""From a layout, a sequence, places of keys in it and k or v to rows of that, pages or caches
flattened: where those keys lie."""


def queries(layout: Layout, index: int) -> Tensor:
    """Return the rows of q that belong to a sequence."""
    return torch.arange(int(layout.starts_q[index]), int(layout.starts_q[index + 1]))


def keys(layout: Layout, index: int, page: int) -> int:
    """Return how many keys a sequence has; `page` is how many rows k has per page or cache."""
    return int(layout.lengths_k[index])


def locate(layout: Layout, index: int, places: Tensor, x: Tensor) -> Tensor:
    """Return the row of each key: behind the start, in its page, or behind the padding."""
    if layout.starts_k is not None:
        return layout.starts_k[index].long() + places
    if layout.block_table is not None:
        return in_pages(layout.block_table[index], places, x.shape[1])
    padding = 0 if layout.left_padding is None else int(layout.left_padding[index])
    return index * x.shape[1] + padding + places


def in_pages(row: Tensor, places: Tensor, page: int) -> Tensor:
    """Return where keys lie whose pages are in `row` of the block table."""
    return row[places // page].long() * page + places % page


@dataclass(frozen=True)
class Memory:
    """The steps of reading and writing, each replaceable.

    ``queries``, ``outputs`` and ``sums`` are the rows of q, of the output and of the log-sum-exp
    of a sequence, ``keys`` its number of keys, ``of_k`` and ``of_v`` where these lie.
    """

    queries: Callable[[Layout, int], Tensor] = queries
    outputs: Callable[[Layout, int], Tensor] = queries
    sums: Callable[[Layout, int], Tensor] = queries
    keys: Callable[[Layout, int, int], int] = keys
    of_k: Locate = locate
    of_v: Locate = locate

    def read(self, call: Call) -> Iterator[Problem]:
        """Yield the problems of a call: one where it is dense, else one per sequence."""
        layout = call.layout
        if layout is None:
            yield problem(call, call.q, call.k, call.v)
            return
        for index in range(layout.batch):
            k, v = self.rows(layout, index, call)
            q = call.q[self.queries(layout, index)]
            yield problem(call, q[None], flat(call.k)[k][None], flat(call.v)[v][None], index)

    def rows(self, layout: Layout, index: int, call: Call) -> tuple[Tensor, Tensor]:
        """Return the rows of the flattened k and v that a sequence reads."""
        places = torch.arange(self.keys(layout, index, call.k.shape[1]))
        of_k = self.of_k(layout, index, places, call.k)
        return of_k, self.of_v(layout, index, places, call.v)

    def part(self, call: Call, x: Tensor, index: int) -> Tensor:
        """Return the rows of a sequence in a tensor that is packed as q: (batch, seqlen_q, ...)."""
        return x if call.layout is None else x[self.queries(call.layout, index)][None]

    def sums_of(self, call: Call, lse: Tensor, index: int) -> Tensor:
        """Return the log-sum-exp of a sequence: (batch, heads, seqlen_q)."""
        return lse if call.layout is None else lse[None, :, self.sums(call.layout, index)]

    def write(self, call: Call, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Lay the answers of all problems into one output and log-sum-exp.

        A part is (batch, seqlen_q, heads, headdim) and (batch, heads, seqlen_q). What nobody
        writes is NaN, as in memory that a suite has poisoned.
        """
        layout = call.layout
        if layout is None:
            return parts[0]
        total, heads, _ = call.q.shape
        out = torch.full((total, heads, call.v.shape[-1]), torch.nan, dtype=call.q.dtype)
        lse = torch.full((heads, total), torch.nan)
        for index, (part, sums) in enumerate(parts):
            out[self.outputs(layout, index)] = part[0].to(out.dtype)
            lse[:, self.sums(layout, index)] = sums[0]
        return out, lse

    def spread(self, call: Call, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
        """Lay the gradients (batch, length, heads, headdim) of all problems into dQ, dK and dV.

        Rows of k and v that no sequence owns have gradient 0.
        """
        layout = call.layout
        if layout is None:
            return list(parts[0])
        found = [torch.zeros(x.shape, dtype=parts[0][0].dtype) for x in (call.q, call.k, call.v)]
        for index, part in enumerate(parts):
            rows = (self.queries(layout, index), *self.rows(layout, index, call))
            for whole, where, gradient in zip(found, rows, part, strict=True):
                flat(whole)[where] = gradient[0]
        return found


def flat(x: Tensor) -> Tensor:
    """Return k or v as rows (rows, heads, headdim): pages and caches one after the other."""
    return x.flatten(0, 1) if x.dim() == 4 else x
