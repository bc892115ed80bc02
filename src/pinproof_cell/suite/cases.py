"""A case: one call of attention, described; what it asks of a candidate, and whom it concerns.

Imports nothing, so that the supervisor can. `grid` holds the cases of the suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

#: Every feature that a case can ask of a candidate.
FEATURES = frozenset(
    {
        "fp16",
        "bf16",
        "fp32",
        "causal",  # aligned bottom-right, square
        "causal-rectangular",  # aligned bottom-right, seqlen_q != seqlen_k
        "window",
        "softcap",
        "alibi",
        "gqa",
        "unaligned-head",  # a head dimension that is no multiple of 8
        "wide-head",  # a head dimension above 128
        "value-head",  # v has another head dimension than q and k
        "strided",  # q, k and v are views: of one packed tensor, or with the heads outside
        "expanded",  # k and v are broadcast: a stride of 0
        "strided-head",  # the last stride is not 1
        "far",  # offsets beyond 2^31 elements
        "empty-rows",  # queries that see no key
        "one-key",
        "no-keys",  # seqlen_k = 0
        "no-queries",  # seqlen_q = 0
        "varlen",  # sequences of different lengths, packed
        "empty-sequences",  # some of them without queries or keys
        "paged",  # keys in pages, found through a block table
        "page-small",  # pages of fewer than 16 keys
        "page-16",
        "page-64",
        "page-256",
        "left-padding",  # a cache whose sequences begin behind padding
        "splits",  # the number of key splits is asked for
        "sinks",
        "dropout",
        "backward",
        "deterministic",  # dQ has the same bits each time, as out, dK and dV have
        "lse",  # the log-sum-exp is handed out
    }
)

#: How a batch may lie in memory, and what its values may be like; `inputs` makes them.
LAYOUTS = ("dense", "varlen", "paged", "left-padded")
MEMORY = ("plain", "packed", "transposed", "expanded", "last-stride", "far", "far-rows")
KINDS = ("diffuse", "peaked", "large", "outlier", "shifted", "edge", "sunken")


@dataclass(frozen=True)
class Case:
    """One call of an attention kernel: its shape, mask, layout, type and kind of input.

    ``window`` counts keys left and right, -1 is without limit. ``lengths`` are the queries and keys
    of each sequence of a ragged layout; the others are of equal lengths and ``batch`` of them.
    ``kind`` is

    - diffuse: normal numbers; peaked: q and k doubled, V coded by position;
    - large: q and k times 6; outlier: a few columns of q and k times 10;
    - shifted: all logits near -120, so that LSE lies below -88.7, where exp() of float32 ends;
    - edge, sunken: logits near the largest and near the smallest number of fp16.

    A ``name`` says what the case is known for.
    """

    seqlen_q: int
    seqlen_k: int
    head_dim: int = 64
    heads: int = 2
    heads_k: int = 2
    causal: bool = False
    window: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    alibi: bool = False
    scale: float | None = None
    memory: str = "plain"
    dtype: str = "bf16"
    kind: str = "diffuse"
    batch: int = 2
    head_dim_v: int = 0
    lengths: tuple[tuple[int, int], ...] = ()
    layout: str = "dense"
    page: int = 0
    splits: int = 0
    sinks: bool = False
    dropout: float = 0.0
    backward: bool = False
    name: str = ""

    @property
    def case(self) -> Case:
        """Itself: a case is a check (`pinproof_cell.suite.checks`) of its own call."""
        return self

    @property
    def dim_v(self) -> int:
        """The head dimension of v."""
        return self.head_dim_v or self.head_dim

    @property
    def sequences(self) -> tuple[tuple[int, int], ...]:
        """Queries and keys of each sequence."""
        return self.lengths or ((self.seqlen_q, self.seqlen_k),) * self.batch

    @property
    def id(self) -> str:
        """All that the case is, in one word: NAME@113x203-d64-h4k2-causal-bf16-diffuse."""
        left, right = self.window
        ragged = "+".join(
            f"{queries}x{keys}" if count == 1 else f"{count}x{queries}x{keys}"
            for (queries, keys), count in _runs(self.lengths)
        )
        parts = [
            f"{self.seqlen_q}x{self.seqlen_k}-d{self.head_dim}",
            f"dv{self.head_dim_v}" if self.head_dim_v else "",
            f"h{self.heads}k{self.heads_k}" if (self.heads, self.heads_k) != (2, 2) else "",
            f"b{self.batch}" if not self.lengths and self.batch != 2 else "",
            "" if self.layout == "dense" else f"{self.layout.replace('-', '')}{self.page or ''}",
            ragged,
            "causal" if self.causal else "",
            f"window{left}.{right}" if self.window != (-1, -1) else "",
            f"softcap{self.softcap:g}" if self.softcap else "",
            "alibi" if self.alibi else "",
            "sinks" if self.sinks else "",
            f"dropout{self.dropout:g}" if self.dropout else "",
            f"splits{self.splits}" if self.splits else "",
            f"scale{self.scale:g}" if self.scale is not None else "",
            "" if self.memory == "plain" else self.memory.replace("-", ""),
            "backward" if self.backward else "",
            self.dtype,
            self.kind,
        ]
        told = "-".join(part for part in parts if part)
        return f"{self.name}@{told}" if self.name else told

    @property
    def features(self) -> frozenset[str]:
        """What a candidate must support to be asked this case."""
        pairs = self.sequences
        # How far a query sees beyond its own place; -1 is without limit.
        ahead = 0 if self.causal else self.window[1]
        asked = {
            "causal": self.causal and any(queries == keys for queries, keys in pairs),
            "causal-rectangular": self.causal and any(queries != keys for queries, keys in pairs),
            "window": self.window != (-1, -1),
            "softcap": self.softcap > 0,
            "alibi": self.alibi,
            "gqa": self.heads != self.heads_k,
            "unaligned-head": self.head_dim % 8 != 0 or self.dim_v % 8 != 0,
            "wide-head": max(self.head_dim, self.dim_v) > 128,
            "value-head": self.dim_v != self.head_dim,
            "strided": self.memory in ("packed", "transposed"),
            "expanded": self.memory == "expanded",
            "strided-head": self.memory == "last-stride",
            "far": self.memory in ("far", "far-rows"),
            "empty-rows": ahead >= 0
            and any(queries > keys + ahead > ahead for queries, keys in pairs),
            "one-key": any(keys == 1 for _, keys in pairs),
            "no-keys": not self.lengths and self.seqlen_k == 0,
            "no-queries": not self.lengths and self.seqlen_q == 0,
            "varlen": self.layout == "varlen",
            "empty-sequences": any(0 in pair for pair in self.lengths),
            "paged": self.layout == "paged",
            "page-small": 0 < self.page < 16,
            "page-16": self.page == 16,
            "page-64": self.page == 64,
            "page-256": self.page == 256,
            "left-padding": self.layout == "left-padded",
            "splits": self.splits > 0,
            "sinks": self.sinks,
            "dropout": self.dropout > 0,
            "backward": self.backward,
        }
        return frozenset({self.dtype} | {name for name, needed in asked.items() if needed})

    @property
    def looks_ahead(self) -> bool:
        """Whether a window lets queries see keys of the future."""
        return self.window[1] != 0 and self.window != (-1, -1) and not self.causal

    @property
    def uses(self) -> tuple[str, ...]:
        """The uses that a failure of this case concerns: "serving", "training", "everything"."""
        return concerned(self.features, self.looks_ahead)


def _runs(lengths: tuple[tuple[int, int], ...]) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield each pair of lengths, and how many sequences in a row have it."""
    for pair, same in groupby(lengths):
        yield pair, len(list(same))


def concerned(features: frozenset[str], ahead: bool) -> tuple[str, ...]:
    """Return the uses that call a kernel with these features; `ahead`: with keys of the future.

    A server never asks for queries without keys, for keys of the future, for ALiBi, dropout or
    gradients; training never for pages, caches or splits.
    """
    if features & {"no-keys", "no-queries", "strided-head"}:
        return ("everything",)
    serving = not (ahead or features & {"alibi", "empty-rows", "dropout", "backward"})
    training = not features & {"paged", "left-padding", "splits"}
    named = (("serving", serving), ("training", training), ("everything", True))
    return tuple(use for use, called in named if called)
