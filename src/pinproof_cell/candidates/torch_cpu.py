"""torch's flash attention for CPUs, called below `scaled_dot_product_attention`, which hides LSE.

Its own causal flag is aligned top-left, so a bottom-right mask of another shape, a window and ALiBi
go through the float mask. Known of torch 2.13: SIGFPE for no keys, LSE 0 on rows without keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinproof_cell.candidates.distribution import failure, version
from pinproof_cell.suite.cases import FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True)
class TorchCpuFlash:
    """`torch.ops.aten._scaled_dot_product_flash_attention_for_cpu`."""

    name: str = "torch-cpu-flash"
    origin: str = "torch"
    supports: frozenset[str] = FEATURES - {"softcap"}
    lse_on_empty_rows: float = 0.0

    @property
    def version(self) -> str | None:
        """The version of torch."""
        return version("torch")

    def available(self) -> str | None:
        """Return why torch does not offer the operator, or None."""
        try:
            import torch

            _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        except Exception as error:
            return failure(error)
        return None

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for softcap, which the operator does not have."""
        import torch

        if call.softcap:
            raise NotImplementedError("torch's CPU flash kernel does not support softcap")
        square = call.q.shape[1] == call.k.shape[1]
        native = call.window_size == (-1, -1) and call.alibi_slopes is None
        native = native and (not call.causal or square)
        mask = None if native else _mask(call)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            call.q.transpose(1, 2),
            call.k.transpose(1, 2),
            call.v.transpose(1, 2),
            0.0,
            call.causal and native,
            attn_mask=mask,
            scale=call.softmax_scale,
        )
        return out.transpose(1, 2), lse


def _mask(call: Call) -> Tensor:
    """Return mask and ALiBi as one float32 bias (1 or batch, 1 or nheads, seqlen_q, seqlen_k)."""
    import torch

    (batch, seqlen_q, heads, _), seqlen_k = call.q.shape, call.k.shape[1]
    own = torch.arange(seqlen_q)[:, None] + seqlen_k - seqlen_q
    distance = own - torch.arange(seqlen_k)
    bias = torch.zeros(1, 1, seqlen_q, seqlen_k)
    if call.alibi_slopes is not None:
        bias = -call.alibi_slopes.float().expand(batch, heads)[:, :, None, None] * distance.abs()
    left, right = call.limits
    if left >= 0:
        bias = bias.masked_fill(distance > left, -torch.inf)
    if right >= 0:
        bias = bias.masked_fill(distance < -right, -torch.inf)
    return bias


CANDIDATE = TorchCpuFlash()
