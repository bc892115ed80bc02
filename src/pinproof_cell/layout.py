"""Where the sequences of a ragged batch lie in memory: packed, paged, or in a padded cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A batch of sequences of different lengths; without one a call is dense.

    Queries are always packed: q and out (total_q, nheads, headdim), lse (nheads, total_q), sequence
    after sequence, `starts_q` int32 (batch + 1). Of the keys exactly one of three is set:

    - `starts_k` int32 (batch + 1): k and v (total_k, nheads_k, headdim), packed as q is;
    - `block_table` int32 (batch, most pages): k and v (pages, page, nheads_k, headdim); key j of
      sequence b is row j % page of page block_table[b, j // page];
    - `left_padding` int32 (batch): k and v (batch, capacity, nheads_k, headdim); key j of sequence
      b is row left_padding[b] + j.

    `lengths_k` int32 (batch) are the keys of each sequence; what lies beyond them is never read.
    `max_q` and `max_k` are the longest lengths.
    """

    starts_q: Tensor
    lengths_k: Tensor
    max_q: int
    max_k: int
    starts_k: Tensor | None = None
    block_table: Tensor | None = None
    left_padding: Tensor | None = None

    @property
    def batch(self) -> int:
        """How many sequences there are."""
        return self.lengths_k.shape[0]

    def rows(self) -> list[tuple[int, int]]:
        """Return where the queries of each sequence begin and end, read to the host."""
        starts: list[int] = self.starts_q.tolist()
        return list(pairwise(starts))

    def sequences(self, q: Tensor, k: Tensor, v: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield q, k and v of each sequence as a dense batch of one: (1, length, heads, dim)."""
        for index, (begin, end) in enumerate(self.rows()):
            keys, values = self.keys(k, index), self.keys(v, index)
            yield q[begin:end][None], keys[None], values[None]

    def keys(self, x: Tensor, index: int) -> Tensor:
        """Return the rows of k or v that belong to sequence `index`: (length, nheads_k, dim)."""
        length = int(self.lengths_k[index])
        if self.starts_k is not None:
            begin = int(self.starts_k[index])
            return x[begin : begin + length]
        if self.block_table is not None:
            pages = x[self.block_table[index, : -(-length // x.shape[1])].long()]
            return pages.flatten(0, 1)[:length]
        begin = 0 if self.left_padding is None else int(self.left_padding[index])
        return x[index, begin : begin + length]
