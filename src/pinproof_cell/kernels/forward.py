"""Pinproof's own forward attention in Triton: one kernel, two modes, no dependency but Triton.

The online softmax follows Milakov and Gimelshein (2018) and FlashAttention-2 (Dao, 2023): keys are
visited tile by tile, with a running maximum and sum per row. Tiles that no mask can touch are
visited without one, the edges with it. An argument that is None is a feature that is not there, and
costs nothing.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: N803  (constants of a Triton kernel are upper case by custom)
# No `from __future__ import annotations`: Triton reads the annotation `tl.constexpr` itself.

import triton
import triton.language as tl

from pinproof_cell.kernels.launch import helper
from pinproof_cell.kernels.memory import at, key_base, key_offset, key_place, load, sequence
from pinproof_cell.kernels.scores import LN2, LOG2E, LOWEST, product, score, seen, span

#: Numbers that are no constants of a kernel, whatever they are: fewer kernels are compiled.
NUMBERS = ["seqlen_q", "seqlen_k", "heads", "group", "splits", "left", "right"]


@helper
def _visit(
    accumulator, maximum, total, q, k, v, k_base, v_base, keep, keep_base, batch, b,
    rows, slope, low, high, begin, end, left, right, scoring,
    MASKED: tl.constexpr, STAGES: tl.constexpr, UPCAST: tl.constexpr,
    HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Fold the keys [begin, end) into the running maximum, sum and output of `rows`.

    `rows` are counted in keys: query i stands at i + seqlen_k - seqlen_q (bottom-right). Outside
    of [low, high) no row sees a key, and none is read: it may be anything.
    """
    dims = tl.arange(0, BLOCK_D)[:, None]
    for start in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        keys = tl.multiple_of(start, BLOCK_N) + tl.arange(0, BLOCK_N)
        inside = keys < high
        if left is not None:
            inside = inside & (keys >= low)
        page, row = key_place(batch, b, keys, high)
        k_tile = load(
            k_base + key_offset(k, batch, start, page, row, 0),
            inside[None, :], dims, MASKED, UPCAST, HEAD, BLOCK_D,
        )  # fmt: skip
        products = product(q, k_tile)
        scores, _ = score(products, rows[:, None], keys[None, :], slope, scoring)
        if MASKED:
            pairs = seen(rows[:, None], keys[None, :], inside[None, :], left, right)
            scores = tl.where(pairs, scores, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, 1) * scoring.to_log2)
        anchor = new_maximum
        if MASKED:
            # A row that has seen no key yet: (-inf) - (-inf) is not a number.
            anchor = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        weights = tl.exp2(scores * scoring.to_log2 - anchor[:, None])
        shrink = tl.exp2(maximum - anchor)
        total = total * shrink + tl.sum(weights, 1)
        if keep is not None:
            # Dropout leaves the sum, and so the log-sum-exp, as it is.
            columns = keys[None, :].to(tl.int64) * keep.column
            kept = tl.load(keep_base + columns, mask=inside[None, :], other=0)
            weights = tl.where(kept != 0, weights, 0.0)
        accumulator = _absorb(
            accumulator, weights, shrink, v, v_base, batch, b, start, low, high,
            left, MASKED, UPCAST, HEAD_V, BLOCK_N, BLOCK_DV,
        )  # fmt: skip
        maximum = new_maximum
    return accumulator, maximum, total


@helper
def _absorb(
    accumulator, p, shrink, v, v_base, batch, b, start, low, high, left,
    MASKED: tl.constexpr, UPCAST: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Add P V of the tile of keys from `start` on to the shrunk output."""
    keys = start + tl.arange(0, BLOCK_N)
    inside = keys < high
    if left is not None:
        inside = inside & (keys >= low)
    page, row = key_place(batch, b, keys, high)
    v_tile = load(
        v_base + key_offset(v, batch, start, page, row, 1),
        inside[:, None], tl.arange(0, BLOCK_DV)[None, :], MASKED, UPCAST, HEAD_V, BLOCK_DV,
    )  # fmt: skip
    if not UPCAST:
        p = p.to(v_tile.dtype)
    return accumulator * shrink[:, None] + product(p, v_tile)


@triton.jit(do_not_specialize=NUMBERS)
def forward(
    q, k, v, out, lse, slopes, sinks, keep, batch, seqlen_q, seqlen_k, heads, group, splits,
    left, right, scoring,
    UPCAST: tl.constexpr, WHOLE: tl.constexpr, PACKED: tl.constexpr,
    EDGES: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Attend one tile of BLOCK_M queries of one head to the keys it may see.

    q, k, v, out, lse, slopes, sinks and keep are `View`s. With `splits` a program takes its share
    of the tile's keys, and writes the head `split * heads + head` of out and lse, for `combine`.
    Unless WHOLE every tile is masked: slower, and a third of the code to compile. Where PACKED,
    rows are the queries of all heads of a group, which then read their keys once.
    """
    # Heads that are programs of their own, and rows to each of them.
    members = group if PACKED else 1
    columns = heads // members
    blocks = tl.cdiv(seqlen_q * members, BLOCK_M)
    program = tl.program_id(0)
    # The longest rows of a causal mask come first, so that none is left over at the end.
    start_m = (blocks - 1 - program % blocks) * BLOCK_M
    column = (program // blocks) % columns
    b = ((program // blocks) // columns).to(tl.int64)
    split = 0
    if splits is not None:
        split = (b % splits).to(tl.int32)
        b = b // splits
    first_q, seqlen_q, first_k, seqlen_k = sequence(batch, b, seqlen_q, seqlen_k)
    if start_m >= seqlen_q * members:
        return

    lanes = start_m + tl.arange(0, BLOCK_M)
    queries = lanes // members
    h = column
    if PACKED:
        h = (column * group + lanes % group)[:, None]
    h_k = column * members // group
    valid = (queries < seqlen_q)[:, None]
    dims = tl.arange(0, BLOCK_D)
    dims_v = tl.arange(0, BLOCK_DV)
    offsets = tl.arange(0, BLOCK_N)
    own = (first_q + queries)[:, None]
    pointers = at(q, b, own, h, dims[None, :])
    q_tile = load(pointers, valid, dims[None, :], True, UPCAST, HEAD, BLOCK_D)
    k_base = key_base(k, batch, b, first_k, offsets[None, :], h_k, dims[:, None])
    v_base = key_base(v, batch, b, first_k, offsets[:, None], h_k, dims_v[None, :])
    keep_base = None
    if keep is not None:
        # Rows beyond the last read what its row holds: nothing of them is written.
        keep_base = at(keep, b, (first_q + tl.minimum(queries, seqlen_q - 1))[:, None], h, 0)
    slope = None
    if slopes is not None:
        slope = tl.load(at(slopes, b, 0, h, 0))

    # first and last: where, in keys, the first and last row of this tile stand.
    shift = seqlen_k - seqlen_q
    rows = queries + shift
    first = start_m // members + shift
    last = tl.minimum((start_m + BLOCK_M - 1) // members, seqlen_q - 1) + shift
    low, high = span(first, last, seqlen_k, left, right)
    whole_low, whole_high = span(last, first, seqlen_k, left, right)
    begin = (low // BLOCK_N) * BLOCK_N
    end = high
    if splits is not None:
        share = tl.cdiv(tl.cdiv(end - begin, splits), BLOCK_N) * BLOCK_N
        begin = tl.minimum(begin + split * share, high)
        end = tl.minimum(begin + share, high)
    whole_begin = tl.minimum(tl.maximum(tl.cdiv(whole_low, BLOCK_N) * BLOCK_N, begin), end)
    whole_end = tl.minimum(tl.maximum((whole_high // BLOCK_N) * BLOCK_N, whole_begin), end)

    maximum = tl.full([BLOCK_M], float("-inf"), tl.float32)
    if sinks is not None:
        # A sink is a logit that was seen before all keys, and has no value. One split sees it.
        sink = tl.where(split == 0, tl.load(at(sinks, 0, 0, h, 0)) * LOG2E, float("-inf"))
        maximum = tl.reshape(tl.broadcast_to(sink, [BLOCK_M, 1]), [BLOCK_M])
    total = tl.where(maximum == float("-inf"), 0.0, 1.0)
    accumulator = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    edges = (begin, whole_begin, whole_end, end) if WHOLE else (begin, end, end, end)
    for part in tl.static_range(3 if WHOLE else 1):
        # Without a limit on the left no tile there needs a mask.
        if part == 1 or (EDGES > 0 and (part == 2 or left is not None or not WHOLE)):
            accumulator, maximum, total = _visit(
                accumulator, maximum, total, q_tile, k, v, k_base, v_base,
                keep, keep_base, batch, b, rows, slope, low, high,
                edges[part], edges[part + 1], left, right, scoring,
                part != 1, None if part == 1 else EDGES, UPCAST,
                HEAD, HEAD_V, BLOCK_N, BLOCK_D, BLOCK_DV,
            )  # fmt: skip

    # A row without keys and sink: output 0, log-sum-exp -inf.
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    logarithm = tl.where(empty, float("-inf"), maximum * LN2 + tl.log(total))
    h += split * heads
    tl.store(at(lse, b, own, h, 0), logarithm[:, None], mask=valid)
    if HEAD_V != BLOCK_DV:
        valid = valid & (dims_v < HEAD_V)[None, :]
    answer = accumulator / total[:, None]
    if keep is not None:
        answer *= scoring.kept
    tl.store(at(out, b, own, h, dims_v[None, :]), answer.to(out.data.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=NUMBERS)
def combine(
    parts, part_lse, out, lse, seqlen_q, heads, splits,
    HEAD_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Join what the `splits` of each row came to: in order, so that the bits are always the same.

    Head `split * heads + head` of `parts` and `part_lse` is what one split of a head wrote.
    """
    blocks = tl.cdiv(seqlen_q, BLOCK_M)
    program = tl.program_id(0)
    queries = ((program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    h = (program // blocks) % heads
    b = (program // blocks) // heads
    dims_v = tl.arange(0, BLOCK_DV)[None, :]
    valid = queries < seqlen_q
    wide = valid & (dims_v < HEAD_V)
    largest = tl.full([BLOCK_M, 1], float("-inf"), tl.float32)
    weights = tl.zeros([BLOCK_M, 1], tl.float32)
    answer = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for split in range(splits):
        own = split * heads + h
        logarithm = tl.load(at(part_lse, b, queries, own, 0), mask=valid, other=float("-inf"))
        new_largest = tl.maximum(largest, logarithm)
        # Parts in which a row sees no key have -inf: (-inf) - (-inf) is not a number.
        base = tl.maximum(new_largest, LOWEST)
        weight = tl.exp(logarithm - base)
        shrink = tl.exp(largest - base)
        part_out = tl.load(at(parts, b, queries, own, dims_v), mask=wide, other=0.0)
        answer = answer * shrink + part_out * weight
        weights = weights * shrink + weight
        largest = new_largest
    logarithm = largest + tl.log(tl.maximum(weights, 1.0))
    tl.store(at(lse, b, queries, h, 0), logarithm, mask=valid)
    answer = answer / tl.maximum(weights, 1.0)
    tl.store(at(out, b, queries, h, dims_v), answer.to(out.data.dtype.element_ty), mask=wide)
