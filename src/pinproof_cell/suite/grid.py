"""The cases of the suite: shapes, masks, layouts and inputs that wake known errors.

Multiples of 128 leave many known errors asleep. The twelve shapes here, in two types and two kinds
of input, wake all errors of the dense forward that the design lists; the other tuples each wake
those of one feature. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle

from pinproof_cell.suite.cases import Case

TWELVE = (
    Case(128, 128),
    Case(113, 203, heads=4, causal=True),
    Case(203, 113, 80, heads=4, heads_k=1, causal=True),
    Case(97, 160, 128, window=(31, 7)),
    Case(200, 200, heads=4, causal=True, window=(33, 0)),
    Case(128, 217, causal=True, softcap=15.0),
    Case(108, 256, 40, heads=4, alibi=True),
    Case(100, 130, causal=True, alibi=True),
    Case(1, 339, 128, heads=8),
    Case(3, 799, 128, heads=4, causal=True),
    Case(257, 257, 111, causal=True),
    Case(64, 1100),
)

#: Type and kind of input: each kind sees errors that the other does not.
GUISES = tuple((dtype, kind) for dtype in ("fp16", "bf16") for kind in ("diffuse", "peaked"))
HALF = (("fp16", "diffuse"), ("bf16", "peaked"))


def guised(shapes: Iterable[Case], guises: Sequence[tuple[str, str]] = HALF) -> tuple[Case, ...]:
    """Return every shape in every type and kind of input."""
    return tuple(replace(x, dtype=dtype, kind=kind) for x in shapes for dtype, kind in guises)


def alternating(shapes: Iterable[Case]) -> tuple[Case, ...]:
    """Return the shapes in one type and kind of input each, in turn."""
    pairs = zip(shapes, cycle(HALF), strict=False)
    return tuple(replace(shape, dtype=dtype, kind=kind) for shape, (dtype, kind) in pairs)


EDGES = (
    Case(5, 1, kind="peaked"),
    Case(130, 2, causal=True, kind="peaked", dtype="fp16"),
    Case(77, 77, 256, causal=True, dtype="fp16"),
    Case(96, 96, causal=True, scale=0.3, memory="packed"),
    Case(128, 0),
)

#: Every case of the plain call: what any attention must be able to do.
PLAIN = (*guised(TWELVE, GUISES), *EDGES)

# From here on the quick suite takes the first few of each group.

SMALLEST = (Case(0, 64), Case(1, 1))

#: Ends of 0 and of none where no causal mask sets the right one, and a causal mask that overrules
#: the right end of a window, as Hugging Face's models ask for.
ENDS = alternating(
    (
        Case(70, 130, window=(20, 0)),
        Case(70, 130, window=(0, 7)),
        Case(70, 130, window=(-1, 0)),
        Case(70, 130, heads=3, heads_k=1, causal=True, window=(33, 33)),
        Case(70, 130, causal=True, window=(40, -1)),
    )
)

WINDOWS = guised(
    (
        Case(130, 70, window=(20, 5)),
        Case(130, 190, heads=4, causal=True, window=(40, 0), softcap=20.0, alibi=True),
        Case(130, 130, causal=True, window=(0, 0)),
        Case(150, 300, window=(-1, 40)),
        Case(190, 190, heads=4, window=(64, -1)),
        Case(70, 130, window=(500, 500)),
        Case(70, 130, window=(20, 20), name="window-ahead"),
        # No right end, and so many queries that one at the number of keys would hide keys.
        Case(40, 8, window=(3, -1), name="left-window-alone"),
    )
)

#: And groups of 3, with sizes that a kernel pads to 64, 96, 128 and 256.
HEADS = (
    *guised(Case(113, 203, dim, heads=4, causal=True) for dim in (256, 160, 16, 32, 96, 192)),
    *alternating(
        Case(113, 130, dim, heads=3, heads_k=1, causal=True) for dim in (48, 72, 112, 224)
    ),
)

VALUE_HEADS = guised(
    (
        Case(97, 160, 192, causal=True, head_dim_v=128),
        Case(113, 203, 64, heads=4, causal=True, head_dim_v=96),
    )
)

#: Large logits, outlying columns, a log-sum-exp below the end of exp() with queries that end in the
#: middle of a tile, and logits that fp16, or a finite number in place of -inf, cannot hold.
VALUES = (
    Case(203, 113, causal=True, kind="sunken", dtype="fp16"),
    Case(192, 192, causal=True, kind="shifted"),
    *(
        Case(113, 203, heads=4, causal=True, kind=kind, dtype=dtype)
        for kind in ("large", "outlier")
        for dtype in ("fp16", "bf16")
    ),
    Case(192, 192, kind="shifted", dtype="fp16"),
    Case(128, 217, causal=True, kind="edge", dtype="fp16"),
    Case(64, 217, kind="sunken"),
    # A row's first tile is hidden, and what follows lies far below 0, or far above its cap.
    Case(60, 90, causal=True, window=(12, 0), kind="shifted", dtype="fp16", name="masked-tile"),
    Case(60, 90, causal=True, softcap=1.0, kind="large", dtype="fp16", name="far-above-its-cap"),
)

#: The scale is no feature: nobody is spared it.
SCALED = Case(40, 70, scale=0.3)

#: Arguments that meet in one call: a kernel may drop one of them where another is given.
TOGETHER = (
    Case(70, 130, heads=4, causal=True, window=(40, 0), softcap=2.0, scale=0.3),
    Case(70, 130, window=(31, 7), softcap=2.0, alibi=True),
    Case(70, 130, heads=4, causal=True, softcap=2.0, alibi=True, scale=0.3),
)

#: The same for a step of decode, a kernel of its own, with groups of 7. ALiBi reaches further than
#: bf16 can count.
STEPS = alternating(
    (
        Case(1, 250, 128, heads=14, causal=True, window=(140, 0), softcap=2.0, scale=0.3),
        Case(1, 799, 96, causal=True, alibi=True, scale=0.3),
    )
)

#: One argument or width each.
ALONE = (
    SCALED,
    Case(64, 64, causal=True),
    Case(40, 70, window=(20, 5)),
    Case(40, 70, softcap=2.0),
    Case(40, 70, alibi=True),
    Case(40, 70, 160),
    Case(40, 70, 111),
)


#: What has no ALiBi, which few kernels take, in both types of 16 bits.
ARGUMENTS = (*guised((SCALED, TOGETHER[0])), *alternating(TOGETHER[1:]))


def _float32(*shapes: Case) -> tuple[Case, ...]:
    return tuple(replace(shape, dtype="fp32") for shape in shapes)


#: A kernel of float32 alone is asked no other cases.
FLOAT32 = (
    Case(113, 203, heads=4, causal=True, dtype="fp32"),
    Case(97, 160, 128, window=(31, 7), dtype="fp32", kind="peaked"),
    *_float32(*ALONE, *TOGETHER, Case(5, 1), Case(60, 20, causal=True)),
)

#: Lengths, batches and heads that end no sooner than a kernel's chunks, grids and loops do.
SIZES = alternating(
    (
        # Tiles of 16, 32, 48, 80, 96 and 112 keys are all full.
        Case(1, 3360, heads=1, heads_k=1, batch=1),
        Case(2100, 20, heads=1, heads_k=1, batch=1),
        Case(3, 20, heads=17, heads_k=17, batch=1),
        Case(3, 20, heads=1, heads_k=1, batch=9),
    )
)

MEMORY = (
    Case(113, 203, heads=4, causal=True, memory="transposed"),
    Case(100, 33, heads=4, memory="expanded"),
    Case(64, 96, memory="last-stride"),
    Case(33, 65, memory="far"),
    Case(33, 200, memory="far-rows", batch=1),
)

SINKS = (
    *guised(
        (
            Case(128, 217, heads=4, causal=True, sinks=True),
            Case(200, 200, causal=True, window=(33, 0), sinks=True),
            Case(1, 339, heads=8, sinks=True),
            Case(130, 2, causal=True, sinks=True),
        )
    ),
    Case(100, 130, 160, heads=4, causal=True, window=(40, 0), sinks=True, scale=0.3),
    # exp(sink - largest logit) overflows; and a whole tile of 128 queries sees no key.
    Case(5, 40, heads=4, sinks=True, kind="sunken"),
    Case(131, 2, 104, causal=True, sinks=True),
)


def _ragged(*lengths: tuple[int, int], layout: str = "varlen", heads: int = 4) -> Case:
    """Return the case of these sequences, with grouped heads."""
    longest = (max(lengths)[0], max(keys for _, keys in lengths))
    return Case(*longest, heads=heads, lengths=lengths, layout=layout)


#: A prefill behind a cache, a whole prefill, a step of decode; with holes; and decode alone.
MIXED = _ragged((70, 133), (129, 129), (1, 200))
HOLES = _ragged((70, 133), (0, 7), (65, 129), (3, 0), (1, 200), (0, 0))
DECODE = _ragged((1, 200), (1, 37), (1, 300), (1, 64))
#: More sequences than a warp has threads.
MANY = replace(
    _ragged(*((1, 20),) * 20, *((3, 37),) * 8, *((9, 70),) * 6), heads=1, heads_k=1, causal=True
)
#: Every argument of models that serve and train, together, and groups of 3.
MODEL = replace(
    _ragged((40, 70), (66, 66), (1, 90), heads=6),
    causal=True, window=(33, 0), softcap=2.0, scale=0.3,
)  # fmt: skip

VARLEN = (
    *guised(
        (
            replace(HOLES, causal=True),
            replace(MIXED, causal=True),
            MIXED,
            replace(MIXED, causal=True, window=(33, 0), heads_k=4),
            replace(MIXED, causal=True, softcap=15.0),
            replace(MIXED, causal=True, alibi=True),
            replace(HOLES, window=(31, 7)),
            replace(DECODE, causal=True, heads=8),
        )
    ),
    *alternating(
        (
            replace(MODEL, head_dim=96),
            MANY,
            replace(MIXED, causal=True, memory="transposed"),
            replace(MIXED, causal=True, sinks=True),
        )
    ),
)

_PAGED = replace(MIXED, layout="paged", causal=True)
_STEP = replace(DECODE, layout="paged", causal=True)
PAGED = alternating(
    (
        replace(_PAGED, page=16),
        replace(_STEP, page=64, heads=8),
        replace(_PAGED, page=256),
        replace(_STEP, page=4, head_dim=128),
        replace(_PAGED, page=64),
        replace(_STEP, page=16, heads=8),
        replace(_PAGED, page=16, window=(33, 0)),
        replace(HOLES, layout="paged", page=64, causal=True),
        replace(_PAGED, page=1),
        replace(_PAGED, page=16, head_dim_v=32),
        replace(MODEL, layout="paged", page=16),
        replace(_STEP, page=256, heads=6, softcap=2.0, scale=0.3, window=(33, 0)),
        replace(_STEP, page=256, alibi=True),
        replace(_PAGED, page=256, memory="transposed"),
    )
)

PADDED = alternating(
    (
        replace(MIXED, layout="left-padded", causal=True),
        replace(DECODE, layout="left-padded", causal=True, window=(33, 0)),
        replace(DECODE, layout="left-padded", causal=True, softcap=2.0, alibi=True, scale=0.3),
    )
)

#: More splits than tiles, splits of masked tiles, of sequences without keys, and with sinks.
SPLITS = alternating(
    (
        Case(64, 64, splits=3),
        Case(1, 799, 128, heads=8, splits=2),
        Case(3, 1100, causal=True, splits=4),
        replace(DECODE, layout="paged", page=64, causal=True, splits=2),
        Case(5, 339, heads=4, causal=True, sinks=True, splits=3),
        replace(HOLES, causal=True, splits=3),
        Case(3, 339, causal=True, window=(200, 0), softcap=2.0, scale=0.3, splits=3),
        Case(1, 339, heads=4, causal=True, alibi=True, splits=2),
        # A tile for each of so many that a merge takes them in several rounds.
        Case(1, 5100, heads=1, heads_k=1, batch=1, splits=40),
    )
)

DROPOUT = (
    Case(64, 64, dropout=0.17),
    Case(100, 130, heads=4, causal=True, dropout=0.5),
    replace(MIXED, causal=True, dropout=0.17, head_dim=128),
    Case(60, 64, causal=True, window=(20, 0), dropout=0.17, scale=0.3),
)

#: What the twelve shapes do not ask of gradients.
GRADIENTS = tuple(
    replace(case, backward=True)
    for case in (
        Case(77, 77, 256, causal=True, dtype="fp16"),
        Case(100, 33, heads=4, memory="expanded"),
        # Gradients of a group that are summed in their own type show where the group is large.
        Case(128, 257, heads=8, heads_k=1),
        *(Case(113, 130, dim, heads=4, causal=True) for dim in (32, 96, 160, 192)),
        Case(97, 160, 192, causal=True, head_dim_v=128),
        Case(113, 203, heads=4, causal=True, memory="transposed"),
        Case(96, 96, causal=True, memory="packed"),
        Case(113, 130, heads=4, causal=True, kind="large"),
        Case(113, 130, heads=4, causal=True, kind="outlier", dtype="fp16"),
        Case(192, 192, kind="shifted"),
        Case(1, 128, kind="shifted", dtype="fp16"),
        Case(113, 130, heads=4, causal=True, dtype="fp32"),
        *_float32(*ALONE, *TOGETHER),
        *ARGUMENTS,
        *SIZES,
        Case(33, 0),
        Case(0, 33, dtype="fp16"),
        Case(128, 217, causal=True, sinks=True),
        Case(130, 2, causal=True),
        replace(MIXED, causal=True, memory="transposed"),
        replace(MODEL, head_dim=96),
        Case(60, 90, 128, causal=True, alibi=True),
        Case(70, 90, 224, causal=True),
        # One end of a window alone; one that a causal mask overrules; and groups of 3.
        Case(113, 130, window=(-1, 40)),
        Case(113, 130, window=(64, -1), dtype="fp16"),
        Case(70, 90, heads=3, heads_k=1, causal=True, window=(33, 33)),
        # Three sequences: slopes that bf16 cannot hold.
        replace(MIXED, causal=True, alibi=True),
        replace(HOLES, causal=True, dtype="fp16"),
        *DROPOUT,
    )
)

#: FlashAttention 2 launches no kernel for this backward on GPUs with 99 KiB of shared memory
#: (sm_86, sm_89, sm_120) and returns whatever its gradients' memory held, without an error.
SILENT_HOLE = tuple(
    Case(128, 128, dim, causal=True, dropout=0.17, backward=True, name="fa2-silent-hole")
    for dim in (224, 256)
)


def gpt_oss(*lengths: tuple[int, int]) -> tuple[Case, Case]:
    """Return how the gpt-oss family calls attention: alternating a window of 128 keys and full."""
    heads = _ragged(*lengths, layout="paged", heads=64)
    full = replace(heads, heads_k=8, page=16, causal=True, sinks=True, name="gpt-oss")
    return replace(full, window=(127, 0)), full


GPT_OSS = gpt_oss((1, 150), (5, 60))

#: On a GPU only: long rows, splits of them, and the production shapes at their lengths.
LONG = (
    Case(1, 131072, 128, heads=4, heads_k=1, batch=1),
    Case(1, 131072, 128, heads=4, heads_k=1, batch=1, splits=8),
    Case(1, 32768, 128, heads=8, causal=True, batch=3),
    Case(2048, 2048, 128, heads=4, causal=True, batch=1),
    Case(1000, 8100, 128, heads=4, causal=True, window=(1023, 0), batch=1),
    Case(4096, 4096, heads=4, batch=1, dtype="fp16", kind="peaked"),
    Case(2048, 2048, 128, heads=4, causal=True, batch=1, backward=True),
    Case(1025, 3000, heads=4, batch=1, backward=True, dtype="fp16"),
    *gpt_oss((1, 4096), (1, 1000), (1, 129), (300, 2048), (512, 512)),
)


#: How many of each group the quick suite takes.
_QUICK = (
    (SMALLEST, 1), (WINDOWS, 3), (HEADS, 3), (VALUE_HEADS, 1), (VALUES, 3), (FLOAT32, 1),
    (MEMORY, 3), (SINKS, 1), (VARLEN, 2), (PAGED, 4), (PADDED, 1), (SPLITS, 1), (DROPOUT, 1),
    (GRADIENTS, 2), (GPT_OSS, 1),
)  # fmt: skip


def suite(level: str, device: str) -> Iterator[Case]:
    """Yield the cases of a suite, "quick" or "full", for "cpu" or "cuda"."""
    backward = [replace(shape, backward=True) for shape in TWELVE]
    if level == "quick":
        yield from guised(TWELVE)
        yield from (case for case in EDGES if case.seqlen_k)
        for group, count in _QUICK:
            yield from group[:count]
        yield from guised((backward[1], backward[2], backward[5]), HALF[1:])
        return
    yield from PLAIN
    yield from (*SMALLEST, *SIZES, *ARGUMENTS, *STEPS)
    yield from (*HEADS, *WINDOWS, *ENDS, *VALUE_HEADS, *VALUES, *FLOAT32, *MEMORY, *SINKS)
    yield from (*VARLEN, *PAGED, *PADDED, *SPLITS, *DROPOUT)
    yield from guised(backward, GUISES if device == "cuda" else HALF)
    yield from (*GRADIENTS, *SILENT_HOLE, *GPT_OSS)
    if device == "cuda":
        yield from LONG
