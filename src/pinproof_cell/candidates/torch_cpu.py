"""torch's flash attention for CPUs, called below `scaled_dot_product_attention`, which hides LSE.

Its own causal flag is aligned top-left, so a bottom-right mask of another shape, a window and ALiBi
go through its float mask, which may be float32 beside any type of q. Strides are passed as they
are. `FlashAttentionKernel.cpp` takes grouped heads, any strides but one head dimension for q, k and
v, and no dropout. Known of torch 2.13: wrong where the last stride is not 1, SIGFPE for no keys,
LSE 0 on rows without keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinproof_cell.candidates.bias import bias, needs_bias
from pinproof_cell.candidates.distribution import Distributed
from pinproof_cell.candidates.gradients import Differentiable
from pinproof_cell.candidates.refusal import refuse

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True, kw_only=True)
class TorchCpuFlash(Differentiable, Distributed):
    """`torch.ops.aten._scaled_dot_product_flash_attention_for_cpu` and its `_backward`."""

    def missing(self) -> str | None:
        """Look the operator up."""
        import torch

        _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        return None

    def attend(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for what the operator does not have."""
        import torch

        refuse(self, call)
        masked = needs_bias(call)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            call.q.transpose(1, 2),
            call.k.transpose(1, 2),
            call.v.transpose(1, 2),
            0.0,
            call.causal and not masked,
            attn_mask=bias(call, torch.float32) if masked else None,
            scale=call.softmax_scale,
        )
        return out.transpose(1, 2), lse


CANDIDATE = TorchCpuFlash(
    name="torch-cpu-flash",
    origin="torch",
    supports=frozenset({"fp16", "bf16", "fp32", "causal", "causal-rectangular", "window", "alibi"})
    | {"gqa", "unaligned-head", "wide-head", "strided", "expanded", "strided-head", "far"}
    | {"empty-rows", "one-key", "no-keys", "backward", "lse"},
    lse_on_empty_rows=0.0,
    needs_cuda=False,
)
