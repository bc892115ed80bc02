"""Pinproof's own forward attention in Triton: one kernel, two modes, no dependency but Triton.

The online softmax follows Milakov and Gimelshein (2018) and FlashAttention-2 (Dao, 2023): keys are
visited tile by tile, with a running maximum and sum per row. Tiles that no mask can touch are
visited without one, the edges with it.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: N803  (constants of a Triton kernel are upper case by custom)
# No `from __future__ import annotations`: Triton reads the annotation `tl.constexpr` itself.

from dataclasses import dataclass

import triton
import triton.language as tl

LN2 = tl.constexpr(0.6931471805599453)
LOG2E = tl.constexpr(1.4426950408889634)

#: Shared memory of one thread block on consumer Blackwell (sm_120), in bytes.
SM120_SHARED = 101_376


@dataclass(frozen=True)
class Tiles:
    """How one launch cuts the work: query rows, keys, warps, pipeline stages."""

    block_m: int
    block_n: int
    warps: int
    stages: int


def tiles(*, mode: str, head_dim: int, causal: bool, seqlen_k: int, shared: int) -> Tiles:
    """Return the tiles of a launch; `shared` is the GPU's shared memory per block in bytes.

    ``ref`` is fixed, so that it means the same on every GPU. ``fast`` was measured on an H200, and
    up to 128 dimensions it fits into the 99 KB of sm_120 as well.
    """
    width = padded(head_dim)
    if mode == "ref":
        return Tiles(64, 32, 4, 1) if width <= 128 else Tiles(32, 16, 4, 1)
    if width <= 64:
        return Tiles(128, 64 if causal else 128, 8, 3)
    if width <= 128:
        return Tiles(64, 64, 4, 3) if causal and seqlen_k <= 8192 else Tiles(128, 64, 8, 3)
    return Tiles(128, 64, 8, 2) if shared > 160_000 else Tiles(64, 32, 4, 2)


def padded(head_dim: int) -> int:
    """Return the power of two, at least 16, that a head of `head_dim` occupies in a tile."""
    return max(16, 1 << (head_dim - 1).bit_length())


@triton.jit
def _load(
    pointers,
    rows,
    columns,
    ROWS_MASKED: tl.constexpr,
    HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
    limit,
):
    """Load a tile; rows from `limit` on and columns from `HEAD` on read as zero."""
    if ROWS_MASKED and HEAD != BLOCK:
        return tl.load(pointers, mask=(rows < limit) & (columns < HEAD), other=0.0)
    if ROWS_MASKED:
        return tl.load(pointers, mask=rows < limit, other=0.0)
    if HEAD != BLOCK:
        return tl.load(pointers, mask=columns < HEAD, other=0.0)
    return tl.load(pointers)


@triton.jit
def _visit(
    accumulator, maximum, total, q, k_base, v_base, k_offsets, v_offsets, stride_kn, stride_vn,
    rows, begin, end, seqlen_k, left, right, to_log2, scale, softcap, slope,
    MASKED: tl.constexpr, HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, HAS_ALIBI: tl.constexpr, UPCAST: tl.constexpr,
    HEAD: tl.constexpr, HEAD_V: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Fold the keys [begin, end) into the running maximum, sum and output of `rows`.

    `rows` are counted in keys: query i stands at i + seqlen_k - seqlen_q (bottom-right).
    """
    dims = tl.arange(0, BLOCK_D)
    dims_v = tl.arange(0, BLOCK_DV)
    for start in range(begin, end, BLOCK_N):
        keys = tl.multiple_of(start, BLOCK_N) + tl.arange(0, BLOCK_N)
        jump = tl.cast(start, tl.int64)
        k = _load(
            k_base + jump * stride_kn + k_offsets,
            keys[None, :], dims[:, None], MASKED, HEAD, BLOCK_D, seqlen_k,
        )  # fmt: skip
        scores = tl.dot(q, k.to(tl.float32), input_precision="ieee") if UPCAST else tl.dot(q, k)
        if HAS_SOFTCAP:
            # tanh through exp of a negative number: it cannot overflow, and needs no libdevice.
            x = scores * (scale / softcap)
            e = tl.exp(-2.0 * tl.abs(x))
            scores = tl.where(x < 0, -softcap, softcap) * (1.0 - e) / (1.0 + e)
        elif HAS_ALIBI:
            scores = scores * scale
        if HAS_ALIBI:
            scores -= slope * tl.abs(rows[:, None] - keys[None, :]).to(tl.float32)
        if MASKED:
            seen = (keys < seqlen_k)[None, :]
            if HAS_RIGHT:
                seen = seen & (keys[None, :] <= rows[:, None] + right)
            if HAS_LEFT:
                seen = seen & (keys[None, :] >= rows[:, None] - left)
            scores = tl.where(seen, scores, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, 1) * to_log2)
        anchor = new_maximum
        if MASKED:
            # A row that has seen no key yet: (-inf) - (-inf) is not a number.
            anchor = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        p = tl.exp2(scores * to_log2 - anchor[:, None])
        shrink = tl.exp2(maximum - anchor)
        total = total * shrink + tl.sum(p, 1)
        accumulator = accumulator * shrink[:, None]
        v = _load(
            v_base + jump * stride_vn + v_offsets,
            keys[:, None], dims_v[None, :], MASKED, HEAD_V, BLOCK_DV, seqlen_k,
        )  # fmt: skip
        if UPCAST:
            accumulator = tl.dot(p, v.to(tl.float32), accumulator, input_precision="ieee")
        else:
            accumulator = tl.dot(p.to(v.dtype), v, accumulator)
        maximum = new_maximum
    return accumulator, maximum, total


@triton.jit
def forward(
    Q, K, V, Out, Lse, Slopes,
    stride_qb, stride_qm, stride_qh, stride_qd,
    stride_kb, stride_kn, stride_kh, stride_kd,
    stride_vb, stride_vn, stride_vh, stride_vd,
    stride_ob, stride_om, stride_oh, stride_od,
    stride_sb, stride_sh,
    heads, group, seqlen_q, seqlen_k, left, right, to_log2, scale, softcap,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
    UPCAST: tl.constexpr, SPLIT: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Attend one tile of BLOCK_M queries of one head to the keys it may see.

    `to_log2` turns a score into a power of two: log2(e), times the softmax scale where neither
    softcap nor ALiBi needs the scaled score itself. Products with a stride are 64 bit. Without
    SPLIT every tile is masked: slower, and a third of the code to compile.
    """
    blocks = tl.cdiv(seqlen_q, BLOCK_M)
    # The longest rows of a causal mask come first, so that none is left over at the end.
    start_m = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_M
    head = (tl.program_id(0) // blocks) % heads
    batch = (tl.program_id(0) // blocks) // heads
    b = batch.to(tl.int64)
    h = head.to(tl.int64)
    h_k = (head // group).to(tl.int64)

    queries = start_m + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    dims_v = tl.arange(0, BLOCK_DV)
    lanes = tl.arange(0, BLOCK_N).to(tl.int64)
    wide = queries.to(tl.int64)
    q = _load(
        Q + b * stride_qb + h * stride_qh
        + wide[:, None] * stride_qm + dims[None, :].to(tl.int64) * stride_qd,
        queries[:, None], dims[None, :], True, HEAD, BLOCK_D, seqlen_q,
    )  # fmt: skip
    if UPCAST:
        q = q.to(tl.float32)
    k_base = K + b * stride_kb + h_k * stride_kh
    v_base = V + b * stride_vb + h_k * stride_vh
    k_offsets = lanes[None, :] * stride_kn + dims[:, None].to(tl.int64) * stride_kd
    v_offsets = lanes[:, None] * stride_vn + dims_v[None, :].to(tl.int64) * stride_vd
    slope = 0.0
    if HAS_ALIBI:
        slope = tl.load(Slopes + b * stride_sb + h * stride_sh)

    # first and last: where, in keys, the first and last row of this tile stand.
    rows = queries + (seqlen_k - seqlen_q)
    first = start_m + (seqlen_k - seqlen_q)
    last = tl.minimum(start_m + BLOCK_M, seqlen_q) - 1 + (seqlen_k - seqlen_q)
    begin = 0
    end = seqlen_k
    whole_end = (seqlen_k // BLOCK_N) * BLOCK_N
    if HAS_RIGHT:
        end = tl.maximum(tl.minimum(end, last + right + 1), 0)
        whole = tl.maximum(tl.minimum(seqlen_k, first + right + 1), 0)
        whole_end = (whole // BLOCK_N) * BLOCK_N
    whole_begin = 0
    if HAS_LEFT:
        begin = (tl.maximum(first - left, 0) // BLOCK_N) * BLOCK_N
        whole_begin = tl.cdiv(tl.maximum(last - left, 0), BLOCK_N) * BLOCK_N
        whole_begin = tl.maximum(whole_begin, begin)
        whole_end = tl.maximum(whole_end, whole_begin)

    maximum = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    accumulator = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    if HAS_LEFT or not SPLIT:
        accumulator, maximum, total = _visit(
            accumulator, maximum, total, q, k_base, v_base, k_offsets, v_offsets,
            stride_kn, stride_vn, rows, begin, tl.minimum(whole_begin, end) if SPLIT else end,
            seqlen_k, left, right, to_log2, scale, softcap, slope,
            True, HAS_LEFT, HAS_RIGHT, HAS_SOFTCAP, HAS_ALIBI, UPCAST,
            HEAD, HEAD_V, BLOCK_N, BLOCK_D, BLOCK_DV,
        )  # fmt: skip
    if SPLIT:
        accumulator, maximum, total = _visit(
            accumulator, maximum, total, q, k_base, v_base, k_offsets, v_offsets,
            stride_kn, stride_vn, rows, whole_begin, whole_end, seqlen_k,
            left, right, to_log2, scale, softcap, slope,
            False, HAS_LEFT, HAS_RIGHT, HAS_SOFTCAP, HAS_ALIBI, UPCAST,
            HEAD, HEAD_V, BLOCK_N, BLOCK_D, BLOCK_DV,
        )  # fmt: skip
        accumulator, maximum, total = _visit(
            accumulator, maximum, total, q, k_base, v_base, k_offsets, v_offsets,
            stride_kn, stride_vn, rows, whole_end, end, seqlen_k,
            left, right, to_log2, scale, softcap, slope,
            True, HAS_LEFT, HAS_RIGHT, HAS_SOFTCAP, HAS_ALIBI, UPCAST,
            HEAD, HEAD_V, BLOCK_N, BLOCK_D, BLOCK_DV,
        )  # fmt: skip

    # A row without keys: output 0, log-sum-exp -inf.
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    lse = tl.where(empty, float("-inf"), maximum * LN2 + tl.log(total))
    tl.store(Lse + (b * heads + h) * seqlen_q + wide, lse, mask=queries < seqlen_q)
    pointers = (
        Out + b * stride_ob + h * stride_oh
        + wide[:, None] * stride_om + dims_v[None, :].to(tl.int64) * stride_od
    )  # fmt: skip
    valid = (queries < seqlen_q)[:, None]
    if HEAD_V != BLOCK_DV:
        valid = valid & (dims_v < HEAD_V)[None, :]
    tl.store(pointers, (accumulator / total[:, None]).to(Out.dtype.element_ty), mask=valid)
