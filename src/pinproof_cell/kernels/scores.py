"""Which keys a query sees, and how a product of query and key becomes a score."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# No `from __future__ import annotations`: Triton reads the annotation `tl.constexpr` itself.

from typing import Any, NamedTuple

import triton.language as tl

from pinproof_cell.kernels.launch import helper

LN2 = tl.constexpr(0.6931471805599453)
LOG2E = tl.constexpr(1.4426950408889634)
#: Below every finite logit: where it stands for -inf, differences stay numbers.
LOWEST = tl.constexpr(-3e38)


class Scoring(NamedTuple):
    """How a product becomes a score, and a score a power of two; None is a step left out.

    `to_log2` is log2(e), times the softmax `scale` where neither softcap nor ALiBi needs the
    scaled score itself. `kept` is what dropout multiplies the keys by that it leaves in.
    """

    scale: Any
    to_log2: Any
    softcap: Any = None
    kept: Any = None


@helper
def product(a, b):
    """Return a b in float32, with `a` rounded to the type of `b` first.

    float32 itself is multiplied as such, and not as TF32.
    """
    return tl.dot(a.to(b.dtype), b, input_precision="ieee")


@helper
def score(products, rows, keys, slope, scoring):
    """Return the scores of a tile, and the softcap's derivative: 1.0 where there is none.

    Whether queries or keys run along the rows of the tile is said by the shapes of `rows`, the
    places of the queries counted in keys, and `keys`. Without ALiBi `slope` is None.
    """
    scores, bend = products, 1.0
    if scoring.softcap is not None:
        # tanh through exp of a negative number: it cannot overflow, and needs no libdevice;
        # 1 - tanh^2 without cancellation.
        x = products * (scoring.scale / scoring.softcap)
        e = tl.exp(-2.0 * tl.abs(x))
        scores = tl.where(x < 0, -scoring.softcap, scoring.softcap) * (1.0 - e) / (1.0 + e)
        bend = 4.0 * e / ((1.0 + e) * (1.0 + e))
    elif slope is not None:
        scores = products * scoring.scale
    if slope is not None:
        scores -= slope * tl.abs(rows - keys).to(tl.float32)
    return scores, bend


@helper
def seen(rows, keys, inside, left, right):
    """Return which pairs of a tile see each other; None is no limit on that side."""
    pairs = inside
    if right is not None:
        pairs = pairs & (keys <= rows + right)
    if left is not None:
        pairs = pairs & (keys >= rows - left)
    return pairs


@helper
def span(first, last, length, before, after):
    """Return where the keys begin and end, of `length`, that any row from `first` to `last` sees.

    Rows are counted in keys, and each sees so many `before` and `after` its own place. With
    `first` and `last` changed over: those that every row sees.
    """
    begin, end = 0, length
    if after is not None:
        end = tl.maximum(tl.minimum(end, last + after + 1), 0)
    if before is not None:
        begin = tl.minimum(tl.maximum(first - before, 0), end)
    return begin, end
