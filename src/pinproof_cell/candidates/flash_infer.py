"""FlashInfer's batch wrappers: ragged prefill, paged prefill and paged decode.

What follows is of the documentation of 0.7.2: packed or paged keys (a dense call is packed first),
a window to the left only, softcap, LSE in base 2; no ALiBi of given slopes, no dropout, no number
of splits. Sinks have wrappers of their own, which are not called here. Head dimensions are those
that vLLM's FlashInfer backend lists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates.distribution import Distributed
from pinproof_cell.candidates.packing import equal_queries, packed, unpacked, unpacked_lse
from pinproof_cell.candidates.refusal import refuse

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call
    from pinproof_cell.layout import Layout

HEAD_DIMENSIONS = (64, 128, 256)
WORKSPACE = 128 << 20  # bytes, as its examples take


@dataclass(frozen=True, kw_only=True)
class FlashInfer(Distributed):
    """The wrapper that fits the layout of the call."""

    origin: str = "flashinfer-python"

    def missing(self) -> str | None:
        """Import the package."""
        import flashinfer  # noqa: F401

        return None

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for what the wrappers do not take."""
        refuse(self, call)
        right = call.limits[1]
        if right > 0:
            raise NotImplementedError(f"{self.name} takes no window to the right")
        if call.q.shape[-1] not in HEAD_DIMENSIONS:
            raise NotImplementedError(f"{self.name} takes heads of {HEAD_DIMENSIONS} only")
        batch, layout = packed(call)
        out, lse = _planned(batch, layout, causal=right == 0).run(
            batch.q,
            *((batch.k, batch.v) if layout.block_table is None else ((batch.k, batch.v),)),
            return_lse=True,
        )
        return unpacked(out, call), unpacked_lse(lse.transpose(0, 1) * math.log(2), call)


def _planned(call: Call, layout: Layout, *, causal: bool) -> Any:
    """Return the wrapper that fits the layout, its plan made."""
    import flashinfer
    import torch

    workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=call.q.device)
    sizes = (call.q.shape[1], call.k.shape[-2], call.q.shape[2])
    options = {
        "sm_scale": call.scale,
        "window_left": call.limits[0],
        "logits_soft_cap": call.softcap or None,
        "q_data_type": call.q.dtype,
    }
    if layout.block_table is None:
        wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD")
        wrapper.plan(layout.starts_q, layout.starts_k, *sizes, causal=causal, **options)
        return wrapper
    page = call.k.shape[1]
    pages = _pages(layout.block_table, layout.lengths_k, page)
    if layout.max_q == 1 and equal_queries(call):
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD")
        wrapper.plan(*pages, *sizes, page, **options)
    else:
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
        wrapper.plan(layout.starts_q, *pages, *sizes, page, causal=causal, **options)
    return wrapper


def _pages(table: Tensor, lengths: Tensor, page: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the pages of each sequence begin, their numbers, and the rows of each last."""
    import torch

    counts = (lengths + page - 1) // page
    begins = torch.nn.functional.pad(counts.cumsum(0, dtype=torch.int32), (1, 0))
    numbers = table[torch.arange(table.shape[1], device=table.device) < counts[:, None]]
    return begins, numbers, lengths - (counts - 1).clamp_min(0) * page


CANDIDATE = FlashInfer(
    name="flashinfer",
    supports=frozenset({"fp16", "bf16", "causal", "causal-rectangular", "window", "softcap"})
    | {"gqa", "wide-head", "one-key", "varlen", "paged", "page-small", "page-16"}
    | {"page-64", "page-256", "lse"},
)
