"""Stand-ins for packages that need a GPU: their documented functions, computed by the oracle.

They hold the candidates to the arguments, layouts and conventions that the packages document:
signatures of flash-attn 2.8.3, flash-attn-4 4.0.0b36, vLLM 0.24.0 and FlashInfer 0.7.2.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import torch

from pinproof_cell.call import Call
from pinproof_cell.layout import Layout
from pinproof_cell.oracle import forward as oracle


def answer(call: Call, *, empty: float, longest: int | None = None):
    """Attend; returns out and LSE as a kernel would, with `empty` as the LSE of empty rows.

    With `longest`, the most keys that the host code knows of, it adds what FlashAttention 2 adds
    to the LSE under causal ALiBi, slope * (i + off); a window of `longest` keys is none there.
    """
    truth = oracle.attention(call)
    out, lse = truth.out.to(call.q.dtype), truth.lse.float()
    left, right = call.limits
    alone = right == 0 and (left < 0 or (longest is not None and left >= longest))
    if longest is not None and alone and call.alibi_slopes is not None:
        rows = []
        for each in call.sequences():
            own = torch.arange(each.q.shape[1]) + each.k.shape[1] - each.q.shape[1]
            slopes = each.alibi_slopes.expand(each.q.shape[0], each.q.shape[2])
            rows.append(slopes[..., None] * own)
        lse = lse + torch.cat(rows, -1)
    lse = lse.masked_fill(truth.empty & lse.isinf(), empty)
    return (out, lse) if call.layout is None else (out[0], lse[0])


def layout(starts_q, lengths, max_q, max_k, **keys) -> Layout:
    """Return a layout, after what every kernel asserts of it."""
    for x in (starts_q, lengths, *keys.values()):
        assert x is None or (x.dtype == torch.int32 and x.is_contiguous())
    assert max_q >= int(starts_q.diff().max())
    assert max_k >= int(lengths.max())
    return Layout(starts_q=starts_q, lengths_k=lengths, max_q=max_q, max_k=max_k, **keys)


def flash_attn() -> ModuleType:
    """Return flash-attn 2."""

    def common(softmax_scale, causal, window_size, softcap, alibi_slopes):
        return {
            "softmax_scale": softmax_scale,
            "causal": causal,
            "window_size": window_size,
            "softcap": softcap,
            "alibi_slopes": alibi_slopes,
        }

    def flash_attn_func(
        q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1),
        softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False,
    ):  # fmt: skip
        rest = common(softmax_scale, causal, window_size, softcap, alibi_slopes)
        call = Call(q=q, k=k, v=v, **rest)
        return (*answer(call, empty=math.inf, longest=k.shape[1]), None)

    def flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
        softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
        deterministic=False, return_attn_probs=False, block_table=None,
    ):  # fmt: skip
        keys = {"starts_k": cu_seqlens_k} if block_table is None else {"block_table": block_table}
        packed = layout(cu_seqlens_q, cu_seqlens_k.diff(), max_seqlen_q, max_seqlen_k, **keys)
        rest = common(softmax_scale, causal, window_size, softcap, alibi_slopes)
        call = Call(q=q, k=k, v=v, layout=packed, **rest)
        return (*answer(call, empty=math.inf, longest=max_seqlen_k), None)

    def flash_attn_with_kvcache(
        q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None,
        cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None,
        causal=False, window_size=(-1, -1), softcap=0.0, rotary_interleaved=True,
        alibi_slopes=None, num_splits=0, return_softmax_lse=False,
    ):  # fmt: skip
        rest = common(softmax_scale, causal, window_size, softcap, alibi_slopes)
        batch, rows = q.shape[:2]
        if cache_seqlens is None:
            call = Call(q=q, k=k_cache, v=v_cache, **rest)
            return answer(call, empty=math.inf, longest=k_cache.shape[1])
        # The lengths count the padding; a cache is one that begins after none.
        begins = torch.zeros_like(cache_seqlens) if cache_leftpad is None else cache_leftpad
        starts = torch.arange(batch + 1, dtype=torch.int32) * rows
        keys = {"left_padding": begins} if block_table is None else {"block_table": block_table}
        cached = layout(starts, cache_seqlens - begins, rows, 10**6, **keys)
        call = Call(q=q.flatten(0, 1), k=k_cache, v=v_cache, layout=cached, **rest)
        longest = k_cache.shape[1] * (1 if block_table is None else block_table.shape[1])
        out, lse = answer(call, empty=math.inf, longest=longest)
        return out.unflatten(0, (batch, rows)), lse.unflatten(1, (batch, rows)).transpose(0, 1)

    module = ModuleType("flash_attn")
    vars(module).update(
        flash_attn_func=flash_attn_func,
        flash_attn_varlen_func=flash_attn_varlen_func,
        flash_attn_with_kvcache=flash_attn_with_kvcache,
    )
    return module


def cute() -> ModuleType:
    """Return flash-attn 4."""

    def flash_attn_func(
        q, k, v, qv=None, gather_kv_indices=None, softmax_scale=None, causal=False,
        window_size=(None, None), learnable_sink=None, softcap=0.0, num_splits=1, pack_gqa=None,
        deterministic=False, return_lse=False,
    ):  # fmt: skip
        assert num_splits == 1, "SplitKV not supported on SM 9.0"
        return _cute(q, k, v, softmax_scale, causal, window_size, softcap, learnable_sink, None)

    def flash_attn_varlen_func(
        q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None,
        max_seqlen_k=None, min_seqlen_k=None, seqused_q=None, seqused_k=None,
        gather_kv_indices=None, page_table=None, softmax_scale=None, causal=False,
        window_size=(None, None), learnable_sink=None, softcap=0.0, num_splits=1, pack_gqa=None,
        deterministic=False, return_lse=False,
    ):  # fmt: skip
        assert num_splits == 1, "SplitKV not supported on SM 9.0"
        assert page_table is None or cu_seqlens_k is None
        keys = {"starts_k": cu_seqlens_k} if page_table is None else {"block_table": page_table}
        lengths = cu_seqlens_k.diff() if page_table is None else seqused_k
        packed = layout(cu_seqlens_q, lengths, max_seqlen_q, max_seqlen_k, **keys)
        return _cute(q, k, v, softmax_scale, causal, window_size, softcap, learnable_sink, packed)

    module = ModuleType("flash_attn.cute")
    vars(module).update(
        flash_attn_func=flash_attn_func, flash_attn_varlen_func=flash_attn_varlen_func
    )
    return module


def _cute(q, k, v, scale, causal, window, softcap, sinks, where):
    assert sinks is None or sinks.dtype == torch.bfloat16
    call = Call(
        q=q, k=k, v=v, softmax_scale=scale, causal=causal, softcap=softcap, sinks=sinks,
        window_size=tuple(-1 if size is None else size for size in window), layout=where,
    )  # fmt: skip
    return answer(call, empty=-math.inf)


def vllm_flash_attn() -> ModuleType:
    """Return `vllm.vllm_flash_attn`."""

    def flash_attn_varlen_func(
        q, k, v, max_seqlen_q, cu_seqlens_q, max_seqlen_k, cu_seqlens_k=None, seqused_k=None,
        q_v=None, dropout_p=0.0, softmax_scale=None, causal=False, window_size=None, softcap=0.0,
        alibi_slopes=None, deterministic=False, return_attn_probs=False, block_table=None,
        return_softmax_lse=False, out=None, scheduler_metadata=None, q_descale=None,
        k_descale=None, v_descale=None, num_splits=0, output_scale=None, fa_version=2, s_aux=None,
    ):  # fmt: skip
        assert (cu_seqlens_k is None) != (seqused_k is None)
        assert block_table is None or seqused_k is not None
        assert s_aux is None or (fa_version == 3 and s_aux.dtype == torch.bfloat16)
        assert alibi_slopes is None or fa_version == 2
        keys = {"starts_k": cu_seqlens_k} if block_table is None else {"block_table": block_table}
        lengths = cu_seqlens_k.diff() if block_table is None else seqused_k
        call = Call(
            q=q, k=k, v=v, softmax_scale=softmax_scale, causal=causal, softcap=softcap,
            window_size=tuple(window_size), alibi_slopes=alibi_slopes, sinks=s_aux,
            layout=layout(cu_seqlens_q, lengths, max_seqlen_q, max_seqlen_k, **keys),
        )  # fmt: skip
        if fa_version == 2:
            found, lse = answer(call, empty=math.inf, longest=max_seqlen_k)
        else:
            found, lse = answer(call, empty=-math.inf)
        assert out.isnan().all()
        return out.copy_(found), lse

    module = ModuleType("vllm.vllm_flash_attn")
    vars(module).update(flash_attn_varlen_func=flash_attn_varlen_func)
    return module


class _Wrapper:
    """One wrapper of FlashInfer: plans, then runs."""

    def __init__(self, float_workspace_buffer, kv_layout="NHD") -> None:
        assert float_workspace_buffer.dtype == torch.uint8

    def run(self, q, *keys, return_lse=False):
        k, v = keys if len(keys) == 2 else keys[0]
        out, lse = answer(replace(self.call, q=q, k=k, v=v), empty=-math.inf)
        return out, lse.transpose(0, 1) / math.log(2)

    def _plan(self, starts, lengths, options, causal, **keys) -> None:
        window, soft = options.get("window_left", -1), options.get("logits_soft_cap")
        nothing = torch.empty(0)
        most = int(starts.diff().max()), int(lengths.max())
        self.call = Call(
            q=nothing, k=nothing, v=nothing, softmax_scale=options["sm_scale"], causal=causal,
            window_size=(window, -1), softcap=soft or 0.0,
            layout=layout(starts, lengths, *most, **keys),
        )  # fmt: skip


class _Ragged(_Wrapper):
    def plan(
        self, qo_indptr, kv_indptr, num_qo_heads, num_kv_heads, head_dim_qk, causal=False, **options
    ):
        self._plan(qo_indptr, kv_indptr.diff(), options, causal, starts_k=kv_indptr)


class _Paged(_Wrapper):
    def plan(
        self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads,
        num_kv_heads, head_dim_qk, page_size, causal=False, **options,
    ):  # fmt: skip
        counts = paged_kv_indptr.diff()
        lengths = (counts - 1).clamp(min=0) * page_size + paged_kv_last_page_len
        table = torch.zeros(len(counts), int(counts.max()), dtype=torch.int32)
        for row, part in zip(table, paged_kv_indices.split(counts.tolist()), strict=True):
            row[: len(part)] = part
        self._plan(qo_indptr, lengths, options, causal, block_table=table)


class _Decode(_Paged):
    def plan(self, indptr, indices, last_page_len, *sizes, **options):
        starts = torch.arange(len(indptr), dtype=torch.int32)
        super().plan(starts, indptr, indices, last_page_len, *sizes, **options)


def flashinfer() -> SimpleNamespace:
    """Return FlashInfer."""
    return SimpleNamespace(
        BatchPrefillWithRaggedKVCacheWrapper=_Ragged,
        BatchPrefillWithPagedKVCacheWrapper=_Paged,
        BatchDecodeWithPagedKVCacheWrapper=_Decode,
    )
