"""Pinproof's reference attention: the Triton kernel behind the signature of flash-attn."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from pinproof_cell.kernels import backward as kernel_backward
from pinproof_cell.kernels import forward as kernel

#: True where Triton interprets its kernels with numpy instead of compiling them for a GPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    mode: str = "ref",
) -> tuple[Tensor, Tensor]:
    """Attend q (batch, seqlen_q, nheads, headdim) to k and v (batch, seqlen_k, nheads_k, headdim).

    Masks are aligned bottom-right, softcap comes before ALiBi, as in flash-attn; `alibi_slopes` is
    (nheads,) or (batch, nheads), float32. Returns the output in q's type and the natural
    log-sum-exp, float32 (batch, nheads, seqlen_q): 0 and -inf for a row that sees no key.

    Mode "ref" computes in float32; "fast" leaves the products to the tensor cores, with P in the
    input type. In Triton's interpreter both are one and the same: float32, for its bf16 product is
    broken, and whole tiles apart from masked ones.

    Raises ValueError for shapes that do not fit and for a scale that is not positive.
    """
    batch, seqlen_q, heads, head_dim = q.shape
    _, seqlen_k, heads_k, head_dim_v = v.shape
    if k.shape != (batch, seqlen_k, heads_k, head_dim) or heads % heads_k or v.shape[0] != batch:
        raise ValueError(f"shapes do not fit: {tuple(q.shape)} {tuple(k.shape)} {tuple(v.shape)}")
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    if not scale > 0:
        raise ValueError(f"softmax_scale must be positive, not {scale}")
    left, right = bounds(seqlen_q, seqlen_k, causal, window_size)
    slopes = None if alibi_slopes is None else alibi_slopes.float().expand(batch, heads)
    # The interpreter truncates where it casts float32 to bfloat16: let torch round.
    out_type = torch.float32 if INTERPRETED else q.dtype
    out = torch.empty((batch, seqlen_q, heads, head_dim_v), dtype=out_type, device=q.device)
    lse = torch.empty((batch, heads, seqlen_q), dtype=torch.float32, device=q.device)
    if not lse.numel():
        return out.to(q.dtype), lse
    careful = mode == "ref" or q.dtype == torch.float32
    size = _tiles(q, max(head_dim, head_dim_v), careful, causal, seqlen_k)
    log2e = kernel.LOG2E.value
    plain = not softcap and slopes is None
    kernel.forward[(batch * heads * -(-seqlen_q // size.block_m),)](
        q, k, v, out, lse, slopes,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        *((0, 0) if slopes is None else slopes.stride()),
        heads, heads // heads_k, seqlen_q, seqlen_k, max(left, 0), max(right, 0),
        scale * log2e if plain else log2e, scale, softcap,
        HAS_LEFT=left >= 0, HAS_RIGHT=right >= 0,
        HAS_SOFTCAP=softcap > 0, HAS_ALIBI=slopes is not None,
        UPCAST=careful or INTERPRETED, SPLIT=not careful or INTERPRETED,
        HEAD=head_dim, HEAD_V=head_dim_v, BLOCK_M=size.block_m, BLOCK_N=size.block_n,
        BLOCK_D=kernel.padded(head_dim), BLOCK_DV=kernel.padded(head_dim_v),
        num_warps=size.warps, num_stages=size.stages,
    )  # fmt: skip
    return out.to(q.dtype), lse


def backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    mode: str = "ref",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, each of its input's shape and type, contiguous.

    `out` and `lse` are what `attention` returned for the same arguments, `dout` the gradient of
    the output. The same bits come every time: nothing is added atomically. Mode "fast" rounds P
    and the gradient of the scores to the input type. Rows that nobody sees get 0.

    Raises ValueError for shapes that do not fit and for a scale that is not positive.
    """
    batch, seqlen_q, heads, head_dim = q.shape
    _, seqlen_k, heads_k, head_dim_v = v.shape
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    _check_backward(dout, q, k, v, out, lse, scale)
    if not lse.numel() or not seqlen_k:
        return q.new_zeros(q.shape), k.new_zeros(k.shape), v.new_zeros(v.shape)
    left, right = bounds(seqlen_q, seqlen_k, causal, window_size)
    slopes = None if alibi_slopes is None else alibi_slopes.float().expand(batch, heads)
    lse = lse.contiguous()
    # The interpreter truncates where it casts float32 to bfloat16: let torch round.
    dq, dk, dv = (
        torch.empty(x.shape, dtype=torch.float32 if INTERPRETED else x.dtype, device=x.device)
        for x in (q, k, v)
    )
    careful = mode == "ref" or q.dtype == torch.float32
    widest = max(head_dim, head_dim_v)
    rows, columns = (_backward_tiles(q, widest, careful, name) for name in ("queries", "keys"))
    delta = torch.empty_like(lse)
    kernel_backward.delta[(batch * heads * -(-seqlen_q // rows.block_m),)](
        out, dout, delta, *out.stride(), *dout.stride(), heads, seqlen_q,
        HEAD_V=head_dim_v, BLOCK_M=rows.block_m, BLOCK_DV=kernel.padded(head_dim_v),
    )  # fmt: skip
    log2e = kernel.LOG2E.value
    plain = not softcap and slopes is None
    strides = (*q.stride(), *k.stride(), *v.stride(), *dout.stride())
    numbers = (
        *((0, 0) if slopes is None else slopes.stride()),
        heads, heads // heads_k, seqlen_q, seqlen_k, max(left, 0), max(right, 0),
        scale * log2e if plain else log2e, scale, softcap,
    )  # fmt: skip
    constants = {
        "HAS_LEFT": left >= 0,
        "HAS_RIGHT": right >= 0,
        "HAS_SOFTCAP": softcap > 0,
        "HAS_ALIBI": slopes is not None,
        "UPCAST": careful or INTERPRETED,
        "HEAD": head_dim,
        "HEAD_V": head_dim_v,
        "BLOCK_D": kernel.padded(head_dim),
        "BLOCK_DV": kernel.padded(head_dim_v),
    }
    kernel_backward.gradient_of_keys[(batch * heads_k * -(-seqlen_k // columns.block_n),)](
        q, k, v, dout, lse, delta, dk, dv, slopes,
        *strides, *dk.stride(), *dv.stride(), *numbers,
        BLOCK_M=columns.block_m, BLOCK_N=columns.block_n,
        num_warps=columns.warps, num_stages=columns.stages, **constants,
    )  # fmt: skip
    kernel_backward.gradient_of_queries[(batch * heads * -(-seqlen_q // rows.block_m),)](
        q, k, v, dout, lse, delta, dq, slopes,
        *strides, *dq.stride(), *numbers,
        BLOCK_M=rows.block_m, BLOCK_N=rows.block_n,
        num_warps=rows.warps, num_stages=rows.stages, **constants,
    )  # fmt: skip
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _check_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> None:
    """Raise ValueError where a shape does not fit the others, or the scale is not positive."""
    batch, seqlen_q, heads, head_dim = q.shape
    _, seqlen_k, heads_k, head_dim_v = v.shape
    if k.shape != (batch, seqlen_k, heads_k, head_dim) or heads % heads_k or v.shape[0] != batch:
        raise ValueError(f"shapes do not fit: {tuple(q.shape)} {tuple(k.shape)} {tuple(v.shape)}")
    if not dout.shape == out.shape == (batch, seqlen_q, heads, head_dim_v):
        raise ValueError(f"shapes do not fit: dout {tuple(dout.shape)}, out {tuple(out.shape)}")
    if lse.shape != (batch, heads, seqlen_q):
        raise ValueError(f"shapes do not fit: lse {tuple(lse.shape)}")
    if not scale > 0:
        raise ValueError(f"softmax_scale must be positive, not {scale}")


def bounds(
    seqlen_q: int, seqlen_k: int, causal: bool, window_size: tuple[int, int]
) -> tuple[int, int]:
    """Return how far left and right of its own place a query sees; -1 is without limit.

    Limits beyond the sequence are cut to it: that leaves the mask as it is, and 32 bits suffice.
    """
    longest = seqlen_q + seqlen_k
    left, right = (-1 if size < 0 else min(size, longest) for size in window_size)
    return left, 0 if causal else right


def _tiles(q: Tensor, head_dim: int, careful: bool, causal: bool, seqlen_k: int) -> kernel.Tiles:
    if INTERPRETED:
        # A tile costs about the same whatever its size: few large ones are fastest.
        return kernel.Tiles(128, 128, 1, 1)
    properties = torch.cuda.get_device_properties(q.device)
    return kernel.tiles(
        mode="ref" if careful else "fast",
        head_dim=head_dim,
        causal=causal,
        seqlen_k=seqlen_k,
        # Older torch does not tell: then take what every GPU since sm_80 has.
        shared=getattr(properties, "shared_memory_per_block_optin", kernel.SM120_SHARED),
    )


def _backward_tiles(q: Tensor, head_dim: int, careful: bool, name: str) -> kernel.Tiles:
    if INTERPRETED:
        return kernel.Tiles(128, 128, 1, 1)
    properties = torch.cuda.get_device_properties(q.device)
    return kernel_backward.tiles(
        mode="ref" if careful else "fast",
        kernel=name,
        head_dim=head_dim,
        shared=getattr(properties, "shared_memory_per_block_optin", kernel.SM120_SHARED),
    )
