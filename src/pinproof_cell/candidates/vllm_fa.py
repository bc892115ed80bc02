"""FlashAttention 2 and 3 as vLLM bundles them: `vllm.vllm_flash_attn`, packed or paged.

A dense call is packed first: the interface knows no other. What follows is of vLLM 0.24.0 to
0.33.0, `flash_attn_interface.py` and the backend that calls it: heads of a multiple of 8, up to
256; pages of a multiple of 16 rows; no dropout and no gradients; FA2 takes ALiBi and no number of
splits, FA3 takes splits, and sinks in bfloat16, which its LSE counts in, and no ALiBi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates import LSE_MINUS_INF, LSE_PLUS_INF
from pinproof_cell.candidates.alibi import plain_lse
from pinproof_cell.candidates.distribution import Distributed
from pinproof_cell.candidates.packing import packed, unpacked, unpacked_lse
from pinproof_cell.candidates.refusal import bfloat16_sinks, refuse, wants_pages

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True, kw_only=True)
class VllmFlashAttention(Distributed):
    """One version of FlashAttention in vLLM."""

    generation: int
    origin: str = "vllm"

    def missing(self) -> str | None:
        """Return what vLLM says against this version on this machine."""
        from vllm import vllm_flash_attn as bundled

        reason: str | None = bundled.fa_version_unsupported_reason(self.generation)
        return reason

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for what the interface does not take."""
        import torch
        from vllm.vllm_flash_attn import flash_attn_varlen_func

        refuse(self, call)
        wants_pages(self, call, 16)
        batch, layout = packed(call)
        # As vLLM calls it, which hands out a buffer; rows that the kernel leaves out must show.
        rows = (*batch.q.shape[:-1], batch.v.shape[-1])
        buffer = batch.q.new_full(rows, torch.nan)
        out, lse = flash_attn_varlen_func(
            batch.q,
            batch.k,
            batch.v,
            layout.max_q,
            layout.starts_q,
            layout.max_k,
            cu_seqlens_k=layout.starts_k,
            seqused_k=layout.lengths_k if layout.starts_k is None else None,
            block_table=layout.block_table,
            softmax_scale=call.softmax_scale,
            causal=call.causal,
            window_size=list(call.window_size),
            softcap=call.softcap,
            alibi_slopes=call.alibi_slopes,
            return_softmax_lse=True,
            out=buffer,
            fa_version=self.generation,
            **self._newer(call),
        )
        if self.generation == 2:
            lse = plain_lse(lse, batch, layout.max_k)
        return unpacked(out, call), unpacked_lse(lse, call)

    def _newer(self, call: Call) -> dict[str, Any]:
        """Return what not every vLLM takes, where the call uses it."""
        found: dict[str, Any] = {"num_splits": call.splits} if call.splits else {}
        if call.sinks is not None:
            found["s_aux"] = bfloat16_sinks(self, call)
        return found


_BOTH = frozenset({"fp16", "bf16", "causal", "causal-rectangular", "window", "softcap", "gqa"})
_BOTH |= {"wide-head", "strided", "empty-rows", "one-key", "no-keys", "varlen", "empty-sequences"}
_BOTH |= {"paged", "page-16", "page-64", "page-256", "lse"}

FA2 = VllmFlashAttention(
    name="vllm-fa2",
    generation=2,
    supports=_BOTH | {"alibi"},
    lse_on_empty_rows=LSE_PLUS_INF,
)
FA3 = VllmFlashAttention(
    name="vllm-fa3",
    generation=3,
    supports=_BOTH | {"splits", "sinks"},
    lse_on_empty_rows=LSE_MINUS_INF,
)
