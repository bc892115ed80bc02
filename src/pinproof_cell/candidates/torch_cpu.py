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

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for softcap, which the operator does not have."""
        import torch

        if softcap:
            raise NotImplementedError("torch's CPU flash kernel does not support softcap")
        native = window_size == (-1, -1) and alibi_slopes is None
        native = native and (not causal or q.shape[1] == k.shape[1])
        mask = None if native else _mask(q, k, causal, window_size, alibi_slopes)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            0.0,
            causal and native,
            attn_mask=mask,
            scale=softmax_scale,
        )
        return out.transpose(1, 2), lse


def _mask(
    q: Tensor, k: Tensor, causal: bool, window_size: tuple[int, int], alibi_slopes: Tensor | None
) -> Tensor:
    """Return mask and ALiBi as one float32 bias (1 or batch, 1 or nheads, seqlen_q, seqlen_k)."""
    import torch

    (batch, seqlen_q, heads, _), seqlen_k = q.shape, k.shape[1]
    own = torch.arange(seqlen_q)[:, None] + seqlen_k - seqlen_q
    distance = own - torch.arange(seqlen_k)
    bias = torch.zeros(1, 1, seqlen_q, seqlen_k)
    if alibi_slopes is not None:
        bias = -alibi_slopes.float().expand(batch, heads)[:, :, None, None] * distance.abs()
    left, right = window_size
    right = 0 if causal else right
    if left >= 0:
        bias = bias.masked_fill(distance > left, -torch.inf)
    if right >= 0:
        bias = bias.masked_fill(distance < -right, -torch.inf)
    return bias


CANDIDATE = TorchCpuFlash()
