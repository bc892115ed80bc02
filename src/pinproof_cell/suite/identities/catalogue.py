"""Which identities are put on which cases. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.grid import DECODE, HOLES, MIXED, TWELVE
from pinproof_cell.suite.identities import Identity

#: A causal prefill behind a cache, a step of decode, a window, and small ones; grouped heads.
PREFILL = Case(113, 203, heads=4, causal=True)
STEP = Case(1, 339, heads=4)
WINDOW = Case(200, 200, heads=4, causal=True, window=(33, 0))
SMALL = Case(50, 60, heads=4, dtype="fp16")
SMALL_WINDOW = replace(SMALL, causal=True, window=(30, 0))
SQUARE = Case(128, 128)

PACKED = replace(MIXED, causal=True)
PADDED = replace(PACKED, layout="left-padded")
PAGED = {page: replace(PACKED, layout="paged", page=page) for page in (16, 64, 256)}
PAGED_STEP = replace(DECODE, layout="paged", page=16, heads=8, causal=True)
PAGED_WINDOW = replace(PAGED[16], window=(33, 0))
#: Long enough that whole tiles lie before the window.
FAR_WINDOW = replace(PAGED_WINDOW, lengths=((1, 700), (20, 600)), seqlen_q=20, seqlen_k=700)
#: Sequences without queries or keys at the start, in the middle and at the end.
ENDS = ((0, 9), (3, 0), (70, 133), (0, 0), (1, 200), (4, 0), (0, 5))
EMPTY = replace(HOLES, lengths=ENDS, causal=True)


@dataclass(frozen=True)
class Row:
    """One identity on several cases, of which the quick suite takes the first ``quick``."""

    quick: int
    name: str
    function: str
    cases: tuple[Case, ...]
    argument: str = ""
    needs: str = ""
    rare: bool = False

    def identities(self) -> Iterator[Identity]:
        """Yield the identity on each case."""
        for case in self.cases:
            needs = frozenset(self.needs.split())
            yield Identity(self.name, self.function, case, self.argument, needs, self.rare)


ROWS = (
    Row(5, "P0-zero-logits", "values.zero_logits",
        (PREFILL, WINDOW, TWELVE[3], EMPTY, PAGED[16], TWELVE[2], STEP, TWELVE[9], TWELVE[10],
         TWELVE[11], SQUARE, PADDED, PAGED[256], PAGED_WINDOW)),
    Row(1, "P1-scaled-values", "values.scaled_values",
        (PREFILL, replace(PREFILL, dtype="fp16"), TWELVE[3], STEP, PAGED[64])),
    Row(1, "P1-scaled-gradient", "values.scaled_gradient", (replace(PREFILL, backward=True),)),
    Row(1, "P2-wide-window", "arguments.wide_window", (SQUARE, PREFILL), needs="window"),
    Row(1, "P2-flat-slopes", "arguments.flat_slopes", (SQUARE, PREFILL), needs="alibi"),
    Row(1, "P2-sunken-sinks", "arguments.sunken_sinks", (PREFILL,), needs="sinks"),
    Row(1, "P2-spelled-scale", "arguments.spelled_scale", (SQUARE,)),
    Row(3, "P3-views", "memory.views",
        (replace(PREFILL, memory="transposed"), replace(SMALL, memory="last-stride"),
         replace(SMALL, memory="expanded"), Case(96, 96, causal=True, memory="packed"),
         Case(33, 65, memory="far"))),
    Row(2, "P4-paged", "sequences.alone",
        (PAGED[16], PAGED[256], PAGED[64], PAGED_WINDOW, PAGED_STEP)),
    Row(1, "P5-grouped", "sequences.grouped",
        (PREFILL, replace(STEP, dtype="fp16"), PACKED, PAGED[16])),
    Row(2, "P6-alone", "sequences.alone",
        (replace(PREFILL, batch=3), PACKED, PADDED, Case(100, 130, alibi=True))),
    Row(2, "P7-beyond", "memory.beyond",
        (PAGED[64], PADDED, PAGED[256], PAGED_WINDOW, PAGED_STEP)),
    Row(1, "P7-beyond-nan", "memory.beyond_nan",
        (PAGED[64], PADDED, PAGED_WINDOW, PAGED_STEP)),
    # An engine zeroes its cache, so NaN is there only after a request that made it; and none takes
    # pages so large by itself.
    Row(0, "P7-beyond-nan", "memory.beyond_nan", (PAGED[256],), rare=True),
    Row(1, "P7-outside-window", "memory.outside_window", (FAR_WINDOW,), rare=True),
    Row(2, "P8-future-keys", "values.future_keys",
        (PREFILL, PACKED, WINDOW, TWELVE[3], replace(PREFILL, dtype="fp16", softcap=15.0))),
    Row(1, "P9-shifted-keys", "values.shifted_keys",
        (PREFILL, replace(SQUARE, dtype="fp16"), STEP, PAGED[16])),
    Row(2, "P10-splits", "sequences.splits",
        (Case(64, 64), STEP, EMPTY, PAGED_STEP), needs="splits"),
    Row(1, "P11-permuted-keys", "values.permuted_keys", (SMALL, STEP, TWELVE[11])),
    Row(2, "P12-last-row", "sequences.last_row",
        (Case(200, 200, heads=4, causal=True), PAGED[16], WINDOW, PREFILL)),
    Row(2, "P13-one-hot", "values.one_hot_values",
        (replace(SMALL, causal=True), Case(40, 64, window=(9, 3)),
         Case(33, 120, 128, heads=4), SMALL)),
    Row(1, "P14-one-key", "values.one_key", (Case(5, 1, heads=4), Case(5, 1, dtype="fp16"))),
    Row(1, "P14-empty-rows", "values.empty_rows", (Case(60, 20, causal=True),)),
    Row(2, "P14-empty-sequences", "sequences.alone",
        (EMPTY, replace(EMPTY, layout="paged", page=16), replace(EMPTY, causal=False))),
    Row(1, "P15-guard-bands", "memory.guard_bands", (PREFILL, STEP, TWELVE[10], SQUARE)),
    Row(1, "P15-guard-rows", "memory.guard_rows", (PREFILL, STEP), needs="strided"),
    Row(1, "again-softcap", "arguments.again",
        (replace(SMALL, softcap=15.0), replace(SMALL, softcap=15.0, backward=True)), "softcap"),
    Row(1, "again-window", "arguments.again",
        (SMALL_WINDOW, WINDOW, replace(SMALL_WINDOW, backward=True)), "window"),
    Row(1, "again-batch", "arguments.again", (PACKED, PAGED[16]), "batch"),
    Row(0, "again-scale", "arguments.again", (SMALL, replace(SMALL, backward=True)), "scale"),
    Row(0, "again-mask", "arguments.again", (SMALL,), "mask", needs="causal-rectangular"),
    Row(0, "again-length", "arguments.again", (SMALL,), "length"),
    Row(0, "again-group", "arguments.again", (PREFILL,), "group"),
    *(
        Row(1, f"ignored-{argument}", "arguments.ignored",
            (Case(40, 40), Case(40, 40, dtype="fp32")), argument)
        for argument in ("causal", "window", "softcap", "alibi", "scale", "sinks", "dropout")
    ),
)  # fmt: skip


def suite(level: str) -> Iterator[Identity]:
    """Yield the identities of a suite, "quick" or "full"."""
    for row in ROWS:
        found = tuple(row.identities())
        yield from found[: row.quick] if level == "quick" else found
