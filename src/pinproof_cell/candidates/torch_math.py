"""torch's math path: attention step by step, and no log-sum-exp.

A correct kernel of another make than the fused ones, to calibrate the judge with: it computes
float16 and bfloat16 in float32 (`allow_fp16_bf16_reduction_math_sdp` is off by default).
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
class TorchMath(Differentiable, Distributed):
    """`torch.ops.aten._scaled_dot_product_attention_math`, on a CPU and on a GPU."""

    def missing(self) -> str | None:
        """Look the operator up."""
        import torch

        _ = torch.ops.aten._scaled_dot_product_attention_math.default
        return None

    def attend(self, call: Call) -> tuple[Tensor, None]:
        """Attend. Raises NotImplementedError for what the operator does not have."""
        import torch

        refuse(self, call)
        masked = needs_bias(call)
        out, _ = torch.ops.aten._scaled_dot_product_attention_math(
            call.q.transpose(1, 2),
            call.k.transpose(1, 2),
            call.v.transpose(1, 2),
            attn_mask=bias(call, torch.float32) if masked else None,
            dropout_p=call.dropout,
            is_causal=call.causal and not masked,
            scale=call.softmax_scale,
            enable_gqa=call.q.shape[2] != call.k.shape[2],
        )
        return out.transpose(1, 2), None


CANDIDATE = TorchMath(
    name="torch-sdpa-math",
    origin="torch",
    supports=frozenset({"fp16", "bf16", "fp32", "causal", "causal-rectangular", "window", "alibi"})
    | {"gqa", "unaligned-head", "wide-head", "value-head", "strided", "expanded", "strided-head"}
    | {"far", "empty-rows", "one-key", "no-keys", "no-queries", "dropout", "backward"},
    needs_cuda=False,
)
