"""flash-attn 4, `flash_attn.cute`: kernels in CuTe DSL, compiled when they are first called.

What follows is of `interface.py` of 4.0.0b36: heads of a multiple of 8; v may have another head
dimension; sinks, splits and pages where the GPU's kernel has them, which it says by an assertion;
no ALiBi, no dropout. Rows without keys get LSE -inf, or the sink.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates.distribution import Distributed
from pinproof_cell.candidates.gradients import Differentiable
from pinproof_cell.candidates.refusal import asserting, bfloat16_sinks, refuse

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call

#: What the first betas do not take: they count for themselves, and hand their LSE out unasked.
HINTS = frozenset({"max_seqlen_q", "max_seqlen_k", "return_lse"})


@dataclass(frozen=True, kw_only=True)
class FlashAttn4(Differentiable, Distributed):
    """`flash_attn.cute.flash_attn_func` and `flash_attn_varlen_func`."""

    origin: str = "flash-attn-4"

    def missing(self) -> str | None:
        """Import the package."""
        import flash_attn.cute  # noqa: F401

        return None

    def attend(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for what no kernel for this GPU takes."""
        from flash_attn import cute

        refuse(self, call)
        function, rest = cute.flash_attn_func, self._options(call)
        layout = call.layout
        if layout is not None:
            if layout.starts_k is None and call.q.requires_grad:
                raise NotImplementedError(f"{self.name} does not take gradients of pages")
            function = cute.flash_attn_varlen_func
            rest |= {
                "cu_seqlens_q": layout.starts_q,
                "cu_seqlens_k": layout.starts_k,
                "seqused_k": layout.lengths_k if layout.starts_k is None else None,
                "max_seqlen_q": layout.max_q,
                "max_seqlen_k": layout.max_k,
                "page_table": layout.block_table,
            }
        known = inspect.signature(function).parameters
        rest = {key: value for key, value in rest.items() if key in known or key not in HINTS}
        with asserting(self):
            out, lse = function(call.q, call.k, call.v, **rest)
        return out, lse

    def _options(self, call: Call) -> dict[str, Any]:
        left, right = (None if size < 0 else size for size in call.window_size)
        return {
            "softmax_scale": call.softmax_scale,
            "causal": call.causal,
            "window_size": (left, right),
            "softcap": call.softcap,
            "learnable_sink": bfloat16_sinks(self, call),
            # 1 is its default; 0 would let it choose, which not every GPU's kernel can.
            "num_splits": call.splits or 1,
            "return_lse": True,
        }


CANDIDATE = FlashAttn4(
    name="flash-attn-4",
    supports=frozenset({"fp16", "bf16", "causal", "causal-rectangular", "window", "softcap"})
    | {"gqa", "wide-head", "value-head", "strided", "expanded", "strided-head", "empty-rows"}
    | {
        "one-key",
        "no-keys",
        "no-queries",
        "varlen",
        "empty-sequences",
        "paged",
        "page-16",
        "page-64",
    }
    | {"page-256", "splits", "sinks", "backward", "lse"},
)
