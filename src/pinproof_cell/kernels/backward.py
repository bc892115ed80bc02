"""Pinproof's own backward attention in Triton: three kernels, no atomics, so bitwise deterministic.

After FlashAttention-2 (Dao, 2023): P is computed anew from the log-sum-exp. One kernel sums
delta = O dO per row; one holds a tile of keys and walks over the queries of every head of its
group; one holds a tile of queries and walks over the keys. With X = scale Q K^T, G the gradient of
X, and tanh' = 1 where there is no softcap:

    P = exp(S - LSE)    G = P (dO V^T - delta) tanh'(X / softcap)
    dV = P^T dO         dK = scale G^T Q         dQ = scale G K
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"
# ruff: noqa: N803  (constants of a Triton kernel are upper case by custom)
# No `from __future__ import annotations`: Triton reads the annotation `tl.constexpr` itself.

import triton
import triton.language as tl

from pinproof_cell.kernels.forward import LOG2E, Tiles, _load, padded


def tiles(*, mode: str, kernel: str, head_dim: int, shared: int) -> Tiles:
    """Return the tiles of a launch of `kernel`, "keys" or "queries"; see `kernel.tiles`.

    The tile that is held is the larger: block_n of "keys", block_m of "queries".
    """
    width = padded(head_dim)
    if mode == "ref":
        held, walked = (64, 32) if width <= 64 else (32, 16) if width <= 128 else (16, 16)
        warps, stages = 4, 1
    elif width <= 64:
        held, walked, warps, stages = (128, 64, 8, 2)
    elif width <= 128:
        held, walked, warps, stages = (128, 64, 8, 2) if shared > 160_000 else (64, 32, 4, 2)
    else:
        held, walked, warps, stages = (64, 32, 8, 2) if shared > 160_000 else (64, 16, 8, 1)
    if kernel == "keys":
        return Tiles(walked, held, warps, stages)
    return Tiles(held, walked, warps, stages)


@triton.jit
def delta(
    Out, DOut, Delta,
    stride_ob, stride_om, stride_oh, stride_od,
    stride_gb, stride_gm, stride_gh, stride_gd,
    heads, seqlen_q,
    HEAD_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Sum O dO over the head's dimensions, for one tile of queries of one head."""
    blocks = tl.cdiv(seqlen_q, BLOCK_M)
    b = (tl.program_id(0) // blocks // heads).to(tl.int64)
    h = (tl.program_id(0) // blocks % heads).to(tl.int64)
    queries = (tl.program_id(0) % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_DV)
    wide = queries.to(tl.int64)
    out = _load(
        Out + b * stride_ob + h * stride_oh
        + wide[:, None] * stride_om + dims[None, :].to(tl.int64) * stride_od,
        queries[:, None], dims[None, :], True, HEAD_V, BLOCK_DV, seqlen_q,
    )  # fmt: skip
    dout = _load(
        DOut + b * stride_gb + h * stride_gh
        + wide[:, None] * stride_gm + dims[None, :].to(tl.int64) * stride_gd,
        queries[:, None], dims[None, :], True, HEAD_V, BLOCK_DV, seqlen_q,
    )  # fmt: skip
    total = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(Delta + (b * heads + h) * seqlen_q + wide, total, mask=queries < seqlen_q)


@triton.jit
def _row_values(Lse, Delta, offset, queries, seqlen_q):
    """Load the log-sum-exp, in powers of two, and delta; +inf where there is nothing to see.

    A row without keys has log-sum-exp -inf (here) or +inf (flash-attn): P is 0 either way.
    """
    inside = queries < seqlen_q
    lse = tl.load(Lse + offset + queries, mask=inside, other=float("inf"))
    lse = tl.where(lse == float("-inf"), float("inf"), lse)
    return lse * LOG2E, tl.load(Delta + offset + queries, mask=inside, other=0.0)


@triton.jit
def _differentiate(
    products, dp, rows, keys, lse, delta_, seqlen_k, left, right, to_log2, scale, softcap, slope,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
):  # fmt: skip
    """Return P and G of one tile, from Q K^T and dO V^T.

    Whether queries or keys are its rows is said by the shapes of `rows`, `keys`, `lse`, `delta_`.
    """
    scores = products
    slack = 1.0
    if HAS_SOFTCAP:
        # tanh through exp of a negative number, as in the forward; 1 - tanh^2 without cancellation.
        x = products * (scale / softcap)
        e = tl.exp(-2.0 * tl.abs(x))
        scores = tl.where(x < 0, -softcap, softcap) * (1.0 - e) / (1.0 + e)
        slack = 4.0 * e / ((1.0 + e) * (1.0 + e))
    elif HAS_ALIBI:
        scores = products * scale
    if HAS_ALIBI:
        scores -= slope * tl.abs(rows - keys).to(tl.float32)
    seen = keys < seqlen_k
    if HAS_RIGHT:
        seen = seen & (keys <= rows + right)
    if HAS_LEFT:
        seen = seen & (keys >= rows - left)
    # Masked before exp2: where the log-sum-exp is very negative, a key that is not there overflows.
    p = tl.exp2(tl.where(seen, scores * to_log2 - lse, float("-inf")))
    return p, tl.where(seen, p * (dp - delta_) * slack, 0.0)


@triton.jit
def gradient_of_keys(
    Q, K, V, DOut, Lse, Delta, DK, DV, Slopes,
    stride_qb, stride_qm, stride_qh, stride_qd,
    stride_kb, stride_kn, stride_kh, stride_kd,
    stride_vb, stride_vn, stride_vh, stride_vd,
    stride_gb, stride_gm, stride_gh, stride_gd,
    stride_dkb, stride_dkn, stride_dkh, stride_dkd,
    stride_dvb, stride_dvn, stride_dvh, stride_dvd,
    stride_sb, stride_sh,
    heads, group, seqlen_q, seqlen_k, left, right, to_log2, scale, softcap,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
    UPCAST: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Write dK and dV of BLOCK_N keys of one key head: all that its query heads give, in order.

    Tiles stand keys by queries, so that P^T and G^T are what is computed. `to_log2` is that of
    `pinproof_cell.kernels.forward.forward`; products with a stride are 64 bit.
    """
    blocks = tl.cdiv(seqlen_k, BLOCK_N)
    start_n = (tl.program_id(0) % blocks) * BLOCK_N
    head_k = (tl.program_id(0) // blocks) % (heads // group)
    b = (tl.program_id(0) // blocks // (heads // group)).to(tl.int64)
    h_k = head_k.to(tl.int64)
    keys = start_n + tl.arange(0, BLOCK_N)
    lanes = tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    dims_v = tl.arange(0, BLOCK_DV)
    wide_keys = keys.to(tl.int64)[:, None]
    wide = dims.to(tl.int64)[None, :]
    wide_v = dims_v.to(tl.int64)[None, :]
    k = _load(
        K + b * stride_kb + h_k * stride_kh + wide_keys * stride_kn + wide * stride_kd,
        keys[:, None], dims[None, :], True, HEAD, BLOCK_D, seqlen_k,
    )  # fmt: skip
    v = _load(
        V + b * stride_vb + h_k * stride_vh + wide_keys * stride_vn + wide_v * stride_vd,
        keys[:, None], dims_v[None, :], True, HEAD_V, BLOCK_DV, seqlen_k,
    )  # fmt: skip
    if UPCAST:
        k = k.to(tl.float32)
        v = v.to(tl.float32)
    q_offsets = lanes.to(tl.int64)[:, None] * stride_qm + wide * stride_qd
    g_offsets = lanes.to(tl.int64)[:, None] * stride_gm + wide_v * stride_gd

    # The queries that see any of these keys: query i stands at i + shift.
    shift = seqlen_k - seqlen_q
    begin = 0
    end = seqlen_q
    if HAS_RIGHT:
        begin = (tl.maximum(start_n - right - shift, 0) // BLOCK_M) * BLOCK_M
    if HAS_LEFT:
        end = tl.minimum(end, tl.minimum(start_n + BLOCK_N, seqlen_k) + left - shift)

    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    for member in range(group):
        h = h_k * group + member
        slope = 0.0
        if HAS_ALIBI:
            slope = tl.load(Slopes + b * stride_sb + h * stride_sh)
        for start in range(begin, end, BLOCK_M):
            queries = tl.multiple_of(start, BLOCK_M) + lanes
            jump = tl.cast(start, tl.int64)
            q = _load(
                Q + b * stride_qb + h * stride_qh + jump * stride_qm + q_offsets,
                queries[:, None], dims[None, :], True, HEAD, BLOCK_D, seqlen_q,
            )  # fmt: skip
            dout = _load(
                DOut + b * stride_gb + h * stride_gh + jump * stride_gm + g_offsets,
                queries[:, None], dims_v[None, :], True, HEAD_V, BLOCK_DV, seqlen_q,
            )  # fmt: skip
            lse, delta_ = _row_values(Lse, Delta, (b * heads + h) * seqlen_q, queries, seqlen_q)
            if UPCAST:
                q = q.to(tl.float32)
                dout = dout.to(tl.float32)
                products = tl.dot(k, tl.trans(q), input_precision="ieee")
                dp = tl.dot(v, tl.trans(dout), input_precision="ieee")
            else:
                products = tl.dot(k, tl.trans(q))
                dp = tl.dot(v, tl.trans(dout))
            p, g = _differentiate(
                products, dp, (queries + shift)[None, :], keys[:, None],
                lse[None, :], delta_[None, :],
                seqlen_k, left, right, to_log2, scale, softcap, slope,
                HAS_LEFT, HAS_RIGHT, HAS_SOFTCAP, HAS_ALIBI,
            )  # fmt: skip
            if UPCAST:
                dv = tl.dot(p, dout, dv, input_precision="ieee")
                dk = tl.dot(g, q, dk, input_precision="ieee")
            else:
                dv = tl.dot(p.to(dout.dtype), dout, dv)
                dk = tl.dot(g.to(q.dtype), q, dk)

    inside = (keys < seqlen_k)[:, None]
    tl.store(
        DK + b * stride_dkb + h_k * stride_dkh + wide_keys * stride_dkn + wide * stride_dkd,
        (dk * scale).to(DK.dtype.element_ty),
        mask=inside & (dims < HEAD)[None, :],
    )
    tl.store(
        DV + b * stride_dvb + h_k * stride_dvh + wide_keys * stride_dvn + wide_v * stride_dvd,
        dv.to(DV.dtype.element_ty),
        mask=inside & (dims_v < HEAD_V)[None, :],
    )


@triton.jit
def gradient_of_queries(
    Q, K, V, DOut, Lse, Delta, DQ, Slopes,
    stride_qb, stride_qm, stride_qh, stride_qd,
    stride_kb, stride_kn, stride_kh, stride_kd,
    stride_vb, stride_vn, stride_vh, stride_vd,
    stride_gb, stride_gm, stride_gh, stride_gd,
    stride_dqb, stride_dqm, stride_dqh, stride_dqd,
    stride_sb, stride_sh,
    heads, group, seqlen_q, seqlen_k, left, right, to_log2, scale, softcap,
    HAS_LEFT: tl.constexpr, HAS_RIGHT: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
    UPCAST: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Write dQ of BLOCK_M queries of one head; arguments as in `gradient_of_keys`."""
    blocks = tl.cdiv(seqlen_q, BLOCK_M)
    # The longest rows of a causal mask come first, so that none is left over at the end.
    start_m = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_M
    head = (tl.program_id(0) // blocks) % heads
    b = (tl.program_id(0) // blocks // heads).to(tl.int64)
    h = head.to(tl.int64)
    h_k = (head // group).to(tl.int64)
    queries = start_m + tl.arange(0, BLOCK_M)
    lanes = tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    dims_v = tl.arange(0, BLOCK_DV)
    wide_queries = queries.to(tl.int64)[:, None]
    wide = dims.to(tl.int64)[None, :]
    wide_v = dims_v.to(tl.int64)[None, :]
    q = _load(
        Q + b * stride_qb + h * stride_qh + wide_queries * stride_qm + wide * stride_qd,
        queries[:, None], dims[None, :], True, HEAD, BLOCK_D, seqlen_q,
    )  # fmt: skip
    dout = _load(
        DOut + b * stride_gb + h * stride_gh + wide_queries * stride_gm + wide_v * stride_gd,
        queries[:, None], dims_v[None, :], True, HEAD_V, BLOCK_DV, seqlen_q,
    )  # fmt: skip
    if UPCAST:
        q = q.to(tl.float32)
        dout = dout.to(tl.float32)
    lse, delta_ = _row_values(Lse, Delta, (b * heads + h) * seqlen_q, queries, seqlen_q)
    slope = 0.0
    if HAS_ALIBI:
        slope = tl.load(Slopes + b * stride_sb + h * stride_sh)
    k_base = K + b * stride_kb + h_k * stride_kh
    v_base = V + b * stride_vb + h_k * stride_vh
    k_offsets = lanes.to(tl.int64)[:, None] * stride_kn + wide * stride_kd
    v_offsets = lanes.to(tl.int64)[:, None] * stride_vn + wide_v * stride_vd

    # first and last: where, in keys, the first and last row of this tile stand.
    shift = seqlen_k - seqlen_q
    begin = 0
    end = seqlen_k
    if HAS_RIGHT:
        last = tl.minimum(start_m + BLOCK_M, seqlen_q) - 1 + shift
        end = tl.minimum(end, last + right + 1)
    if HAS_LEFT:
        begin = (tl.maximum(start_m + shift - left, 0) // BLOCK_N) * BLOCK_N

    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(begin, end, BLOCK_N):
        keys = tl.multiple_of(start, BLOCK_N) + lanes
        jump = tl.cast(start, tl.int64)
        k = _load(
            k_base + jump * stride_kn + k_offsets,
            keys[:, None], dims[None, :], True, HEAD, BLOCK_D, seqlen_k,
        )  # fmt: skip
        v = _load(
            v_base + jump * stride_vn + v_offsets,
            keys[:, None], dims_v[None, :], True, HEAD_V, BLOCK_DV, seqlen_k,
        )  # fmt: skip
        if UPCAST:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
            products = tl.dot(q, tl.trans(k), input_precision="ieee")
            dp = tl.dot(dout, tl.trans(v), input_precision="ieee")
        else:
            products = tl.dot(q, tl.trans(k))
            dp = tl.dot(dout, tl.trans(v))
        _, g = _differentiate(
            products, dp, (queries + shift)[:, None], keys[None, :],
            lse[:, None], delta_[:, None],
            seqlen_k, left, right, to_log2, scale, softcap, slope,
            HAS_LEFT, HAS_RIGHT, HAS_SOFTCAP, HAS_ALIBI,
        )  # fmt: skip
        dq = tl.dot(g, k, dq, input_precision="ieee") if UPCAST else tl.dot(g.to(k.dtype), k, dq)

    tl.store(
        DQ + b * stride_dqb + h * stride_dqh + wide_queries * stride_dqm + wide * stride_dqd,
        (dq * scale).to(DQ.dtype.element_ty),
        mask=(queries < seqlen_q)[:, None] & (dims < HEAD)[None, :],
    )
