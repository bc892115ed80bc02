"""FlashAttention 2 and 3 as vLLM bundles them: `vllm.vllm_flash_attn`, variable lengths only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinproof_cell.candidates import LSE_MINUS_INF, LSE_PLUS_INF
from pinproof_cell.candidates.distribution import failure, version
from pinproof_cell.candidates.flash_attn_2 import plain_lse
from pinproof_cell.suite.cases import FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True)
class VllmFlashAttention:
    """One version of FlashAttention in vLLM; heads must be a multiple of 8, up to 256."""

    generation: int
    supports: frozenset[str]
    lse_on_empty_rows: float
    origin: str = "vllm"

    @property
    def name(self) -> str:
        """The name in results: vllm-fa2 or vllm-fa3."""
        return f"vllm-fa{self.generation}"

    @property
    def version(self) -> str | None:
        """The version of vLLM."""
        return version("vllm")

    def available(self) -> str | None:
        """Return what vLLM says against this version on this machine, or None."""
        try:
            import torch

            if not torch.cuda.is_available():
                return "torch sees no CUDA device"
            from vllm import vllm_flash_attn as bundled

            reason: str | None = bundled.fa_version_unsupported_reason(self.generation)
        except Exception as error:
            return failure(error)
        return reason

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend the batch as sequences of equal length, packed one after the other."""
        from vllm.vllm_flash_attn import flash_attn_varlen_func

        batch, seqlen_q, heads, _ = call.q.shape
        seqlen_k = call.k.shape[1]
        out, lse = flash_attn_varlen_func(
            call.q.flatten(0, 1),
            call.k.flatten(0, 1),
            call.v.flatten(0, 1),
            seqlen_q,
            _starts(batch, seqlen_q, call.q),
            seqlen_k,
            cu_seqlens_k=_starts(batch, seqlen_k, call.q),
            softmax_scale=call.softmax_scale,
            causal=call.causal,
            window_size=list(call.window_size),
            softcap=call.softcap,
            alibi_slopes=call.alibi_slopes,
            return_softmax_lse=True,
            fa_version=self.generation,
        )
        # (nheads, total_q): sequence after sequence along the last dimension.
        lse = lse.reshape(heads, batch, seqlen_q).transpose(0, 1)
        lse = plain_lse(lse, seqlen_k, call)
        return out.unflatten(0, (batch, seqlen_q)), lse


def _starts(batch: int, length: int, like: Tensor) -> Tensor:
    import torch

    return torch.arange(batch + 1, dtype=torch.int32, device=like.device) * length


FA2 = VllmFlashAttention(2, FEATURES - {"fp32", "unaligned-head"}, LSE_PLUS_INF)
FA3 = VllmFlashAttention(3, FEATURES - {"fp32", "unaligned-head", "alibi"}, LSE_MINUS_INF)
