"""Pinproof's own backward attention in Triton: two kernels, no atomics, so bitwise deterministic.

After FlashAttention-2 (Dao, 2023): P is computed anew from the log-sum-exp. One kernel holds a tile
of keys and walks over the queries of every head of its group; one holds a tile of queries and walks
over the keys. With X = scale Q K^T, G the gradient of X, delta the sum of O dO per row, D what
dropout multiplies P by (1 without it), and tanh' = 1 where there is no softcap:

    P = exp(S - LSE)    G = P (D dO V^T - delta) tanh'(X / softcap)
    dV = (D P)^T dO     dK = scale G^T Q         dQ = scale G K

Sinks have their share in the log-sum-exp, and no part beside that.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: N803  (constants of a Triton kernel are upper case by custom)
# No `from __future__ import annotations`: Triton reads the annotation `tl.constexpr` itself.

import triton
import triton.language as tl

from pinproof_cell.kernels.forward import NUMBERS
from pinproof_cell.kernels.launch import helper
from pinproof_cell.kernels.memory import at, load, sequence
from pinproof_cell.kernels.scores import LOG2E, product, score, seen, span


@helper
def _row_values(lse, delta, b, rows, h, valid):
    """Load the log-sum-exp, in powers of two, and delta; +inf where there is nothing to see.

    A row without keys has log-sum-exp -inf (here) or +inf (flash-attn): P is 0 either way.
    """
    logarithm = tl.load(at(lse, b, rows, h, 0), mask=valid, other=float("inf"))
    logarithm = tl.where(logarithm == float("-inf"), float("inf"), logarithm)
    return logarithm * LOG2E, tl.load(at(delta, b, rows, h, 0), mask=valid, other=0.0)


@helper
def _differentiate(products, dp, rows, keys, pairs, logarithm, delta, kept, slope, scoring):
    """Return D P and G of one tile, from Q K^T and dO V^T; `pairs` are those that see each other.

    Whether queries or keys are its rows is said by the shapes of the arguments. `kept` is not 0
    where dropout leaves a key in, None without dropout.
    """
    scores, bend = score(products, rows, keys, slope, scoring)
    # Masked before exp2: where the log-sum-exp is very negative, a key that is not there overflows.
    p = tl.exp2(tl.where(pairs, scores * scoring.to_log2 - logarithm, float("-inf")))
    dropped = p
    if kept is not None:
        dropped = tl.where(kept != 0, p * scoring.kept, 0.0)
        dp = tl.where(kept != 0, dp * scoring.kept, 0.0)
    return dropped, tl.where(pairs, p * (dp - delta) * bend, 0.0)


@triton.jit(do_not_specialize=NUMBERS)
def gradient_of_keys(
    q, k, v, dout, lse, delta, dk, dv, slopes, keep, batch, seqlen_q, seqlen_k, heads, group,
    left, right, scoring,
    UPCAST: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Write dK and dV of BLOCK_N keys of one key head: all that its query heads give, in order.

    Tiles stand keys by queries, so that P^T and G^T are what is computed. Arguments as in
    `pinproof_cell.kernels.forward.forward`.
    """
    blocks = tl.cdiv(seqlen_k, BLOCK_N)
    start_n = (tl.program_id(0) % blocks) * BLOCK_N
    h_k = (tl.program_id(0) // blocks) % (heads // group)
    b = (tl.program_id(0) // blocks // (heads // group)).to(tl.int64)
    first_q, seqlen_q, first_k, seqlen_k = sequence(batch, b, seqlen_q, seqlen_k)
    if start_n >= seqlen_k:
        return
    keys = start_n + tl.arange(0, BLOCK_N)
    lanes = tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)[None, :]
    dims_v = tl.arange(0, BLOCK_DV)[None, :]
    own = (first_k + keys)[:, None]
    inside = (keys < seqlen_k)[:, None]
    k_tile = load(at(k, b, own, h_k, dims), inside, dims, True, UPCAST, HEAD, BLOCK_D)
    v_tile = load(at(v, b, own, h_k, dims_v), inside, dims_v, True, UPCAST, HEAD_V, BLOCK_DV)

    # The queries that see any of these keys: query i stands at i + shift.
    shift = seqlen_k - seqlen_q
    last = tl.minimum(start_n + BLOCK_N, seqlen_k) - 1
    begin, end = span(start_n - shift, last - shift, seqlen_q, right, left)
    dk_tile = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv_tile = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    for member in range(group):
        h = h_k * group + member
        slope = None
        if slopes is not None:
            slope = tl.load(at(slopes, b, 0, h, 0))
        for start in range((begin // BLOCK_M) * BLOCK_M, end, BLOCK_M):
            queries = tl.multiple_of(start, BLOCK_M) + lanes
            valid = queries < seqlen_q
            at_q = first_q + queries
            q_tile = load(
                at(q, b, at_q[:, None], h, dims), valid[:, None], dims, True, UPCAST, HEAD, BLOCK_D
            )
            do_tile = load(
                at(dout, b, at_q[:, None], h, dims_v), valid[:, None], dims_v, True,
                UPCAST, HEAD_V, BLOCK_DV,
            )  # fmt: skip
            logarithm, delta_row = _row_values(lse, delta, b, at_q, h, valid)
            kept = None
            if keep is not None:
                kept = tl.load(
                    at(keep, b, at_q[None, :], h, keys[:, None]),
                    mask=inside & valid[None, :], other=0,
                )  # fmt: skip
            rows = (queries + shift)[None, :]
            p, g = _differentiate(
                product(k_tile, tl.trans(q_tile)),
                product(v_tile, tl.trans(do_tile)),
                rows, keys[:, None], seen(rows, keys[:, None], inside, left, right),
                logarithm[None, :], delta_row[None, :], kept, slope, scoring,
            )  # fmt: skip
            dv_tile += product(p, do_tile)
            dk_tile += product(g, q_tile)

    tl.store(
        at(dk, b, own, h_k, dims), (dk_tile * scoring.scale).to(dk.data.dtype.element_ty),
        mask=inside & (dims < HEAD),
    )  # fmt: skip
    tl.store(
        at(dv, b, own, h_k, dims_v), dv_tile.to(dv.data.dtype.element_ty),
        mask=inside & (dims_v < HEAD_V),
    )  # fmt: skip


@triton.jit(do_not_specialize=NUMBERS)
def gradient_of_queries(
    q, k, v, dout, lse, delta, dq, slopes, keep, batch, seqlen_q, seqlen_k, heads, group,
    left, right, scoring,
    UPCAST: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Write dQ of BLOCK_M queries of one head; arguments as in `gradient_of_keys`."""
    blocks = tl.cdiv(seqlen_q, BLOCK_M)
    # The longest rows of a causal mask come first, so that none is left over at the end.
    start_m = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_M
    h = (tl.program_id(0) // blocks) % heads
    b = (tl.program_id(0) // blocks // heads).to(tl.int64)
    h_k = h // group
    first_q, seqlen_q, first_k, seqlen_k = sequence(batch, b, seqlen_q, seqlen_k)
    if start_m >= seqlen_q:
        return
    queries = start_m + tl.arange(0, BLOCK_M)
    lanes = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)[None, :]
    dims_v = tl.arange(0, BLOCK_DV)[None, :]
    at_q = first_q + queries
    valid = queries < seqlen_q
    q_tile = load(
        at(q, b, at_q[:, None], h, dims), valid[:, None], dims, True, UPCAST, HEAD, BLOCK_D
    )
    do_tile = load(
        at(dout, b, at_q[:, None], h, dims_v),
        valid[:, None],
        dims_v,
        True,
        UPCAST,
        HEAD_V,
        BLOCK_DV,
    )
    logarithm, delta_row = _row_values(lse, delta, b, at_q, h, valid)
    slope = None
    if slopes is not None:
        slope = tl.load(at(slopes, b, 0, h, 0))

    # Where, in keys, the rows of this tile stand.
    shift = seqlen_k - seqlen_q
    rows = (queries + shift)[:, None]
    last = tl.minimum(start_m + BLOCK_M, seqlen_q) - 1 + shift
    low, high = span(start_m + shift, last, seqlen_k, left, right)
    dq_tile = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range((low // BLOCK_N) * BLOCK_N, high, BLOCK_N):
        keys = tl.multiple_of(start, BLOCK_N) + lanes
        # No row sees the others, which may be anything.
        inside = (keys >= low) & (keys < high)
        own = (first_k + keys)[:, None]
        k_tile = load(at(k, b, own, h_k, dims), inside[:, None], dims, True, UPCAST, HEAD, BLOCK_D)
        v_tile = load(
            at(v, b, own, h_k, dims_v), inside[:, None], dims_v, True, UPCAST, HEAD_V, BLOCK_DV
        )
        kept = None
        if keep is not None:
            kept = tl.load(
                at(keep, b, at_q[:, None], h, keys[None, :]),
                mask=valid[:, None] & inside[None, :], other=0,
            )  # fmt: skip
        _, g = _differentiate(
            product(q_tile, tl.trans(k_tile)),
            product(do_tile, tl.trans(v_tile)),
            rows, keys[None, :], seen(rows, keys[None, :], inside[None, :], left, right),
            logarithm[:, None], delta_row[:, None], kept, slope, scoring,
        )  # fmt: skip
        dq_tile += product(g, k_tile)

    tl.store(
        at(dq, b, at_q[:, None], h, dims), (dq_tile * scoring.scale).to(dq.data.dtype.element_ty),
        mask=valid[:, None] & (dims < HEAD),
    )  # fmt: skip
