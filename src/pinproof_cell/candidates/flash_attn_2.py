"""flash-attn 2, the package that users install: `flash_attn.flash_attn_func`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinproof_cell.candidates import LSE_PLUS_INF
from pinproof_cell.candidates.distribution import failure, version
from pinproof_cell.suite.cases import FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True)
class FlashAttn2:
    """The dense forward. Rows without keys get LSE +inf (`softmax.h`)."""

    name: str = "flash-attn-2"
    origin: str = "flash-attn"
    supports: frozenset[str] = FEATURES - {"fp32"}
    lse_on_empty_rows: float = LSE_PLUS_INF

    @property
    def version(self) -> str | None:
        """The version of flash-attn."""
        return version("flash-attn")

    def available(self) -> str | None:
        """Return why flash-attn does not import or has no device, or None."""
        try:
            import flash_attn  # noqa: F401
            import torch

            if not torch.cuda.is_available():
                return "torch sees no CUDA device"
        except Exception as error:
            return failure(error)
        return None

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend; return_attn_probs is how the package hands out its LSE."""
        from flash_attn import flash_attn_func

        out, lse, _ = flash_attn_func(
            call.q,
            call.k,
            call.v,
            softmax_scale=call.softmax_scale,
            causal=call.causal,
            window_size=call.window_size,
            softcap=call.softcap,
            alibi_slopes=call.alibi_slopes,
            return_attn_probs=True,
        )
        return out, plain_lse(lse, call.k.shape[1], call)


def plain_lse(lse: Tensor, seqlen_k: int, call: Call) -> Tensor:
    """Return FA2's log-sum-exp (batch, nheads, seqlen_q) without its shift of causal ALiBi.

    Where the mask is causal alone, FA2 adds slope * j instead of -slope * |i + off - j|
    (`mask.h`): the same softmax, but LSE is larger by slope * (i + off).
    """
    if call.alibi_slopes is None or not call.causal or call.window_size[0] >= 0:
        return lse
    import torch

    batch, heads, seqlen_q = lse.shape
    own = torch.arange(seqlen_q, device=lse.device) + seqlen_k - seqlen_q
    return lse - call.alibi_slopes.float().expand(batch, heads)[:, :, None] * own


CANDIDATE = FlashAttn2()
