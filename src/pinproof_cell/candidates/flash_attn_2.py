"""flash-attn 2, the package that users install.

Dense and packed calls go to `flash_attn_func` and `flash_attn_varlen_func`; caches, pages and
numbers of splits to `flash_attn_with_kvcache`, which wants as many queries of each sequence, or to
the packed one with a block table. What follows is of `flash_attn_interface.py` and `flash_api.cpp`
of 2.8.3: head dimensions up to 256, padded to a multiple of 8, the same for q, k and v; pages of a
multiple of 256 rows; any strides, the last one made 1 by a copy; no sinks. Rows without keys get
LSE +inf (`softmax.h`). A build that leaves a feature out says "does not support".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates import LSE_PLUS_INF
from pinproof_cell.candidates.alibi import plain_lse
from pinproof_cell.candidates.distribution import Distributed
from pinproof_cell.candidates.gradients import Differentiable
from pinproof_cell.candidates.packing import equal_queries
from pinproof_cell.candidates.refusal import refuse, wants_pages

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call
    from pinproof_cell.layout import Layout


@dataclass(frozen=True, kw_only=True)
class FlashAttn2(Differentiable, Distributed):
    """flash-attn 2; ``deterministic`` is its flag of the backward."""

    origin: str = "flash-attn"
    deterministic: bool = False

    def missing(self) -> str | None:
        """Import the package."""
        import flash_attn  # noqa: F401

        return None

    def attend(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for what the package has no function for."""
        refuse(self, call)
        wants_pages(self, call, 256)
        layout = call.layout
        if layout is None and not call.splits:
            return self._dense(call)
        if layout is not None and layout.starts_k is not None:
            if call.splits:
                raise NotImplementedError(f"{self.name} does not take splits of packed sequences")
            return self._packed(call, layout)
        if call.dropout or call.q.requires_grad:
            raise NotImplementedError(f"{self.name} does not take dropout or gradients of a cache")
        if layout is None or equal_queries(call):
            return self._cached(call)
        if layout.block_table is None or call.splits:
            raise NotImplementedError(
                f"{self.name} takes splits and left-padded caches only with as many queries of "
                "each sequence"
            )
        return self._packed(call, layout)

    def _dense(self, call: Call) -> tuple[Tensor, Tensor]:
        from flash_attn import flash_attn_func

        out, lse, _ = flash_attn_func(
            call.q, call.k, call.v, return_attn_probs=True, **self._training(call)
        )
        return out, plain_lse(lse, call, call.k.shape[1])

    def _packed(self, call: Call, layout: Layout) -> tuple[Tensor, Tensor]:
        import torch
        from flash_attn import flash_attn_varlen_func

        starts_k = layout.starts_k
        if starts_k is None:
            ends = layout.lengths_k.cumsum(0, dtype=torch.int32)
            starts_k = torch.nn.functional.pad(ends, (1, 0))
        out, lse, _ = flash_attn_varlen_func(
            call.q,
            call.k,
            call.v,
            layout.starts_q,
            starts_k,
            layout.max_q,
            layout.max_k,
            return_attn_probs=True,
            block_table=layout.block_table,
            **self._training(call),
        )
        return out, plain_lse(lse, call, layout.max_k)

    def _cached(self, call: Call) -> tuple[Tensor, Tensor]:
        from flash_attn import flash_attn_with_kvcache

        layout, q, lengths, longest = call.layout, call.q, None, call.k.shape[1]
        if layout is not None:
            q = q.unflatten(0, (layout.batch, layout.max_q))
            lengths = layout.lengths_k
            if layout.left_padding is not None:
                # It counts from the beginning of the cache, padding included (`block_info.h`).
                lengths = lengths + layout.left_padding
            if layout.block_table is not None:
                longest *= layout.block_table.shape[1]
        out, lse = flash_attn_with_kvcache(
            q,
            call.k,
            call.v,
            cache_seqlens=lengths,
            cache_leftpad=None if layout is None else layout.left_padding,
            block_table=None if layout is None else layout.block_table,
            num_splits=call.splits,
            return_softmax_lse=True,
            **self._common(call),
        )
        if layout is not None:
            out, lse = out.flatten(0, 1), lse.transpose(0, 1).flatten(1)
        return out, plain_lse(lse, call, longest)

    def _common(self, call: Call) -> dict[str, Any]:
        return {
            "softmax_scale": call.softmax_scale,
            "causal": call.causal,
            "window_size": call.window_size,
            "softcap": call.softcap,
            "alibi_slopes": call.alibi_slopes,
        }

    def _training(self, call: Call) -> dict[str, Any]:
        return {
            "dropout_p": call.dropout,
            "deterministic": self.deterministic,
            **self._common(call),
        }


_SUPPORTS = frozenset({"fp16", "bf16", "causal", "causal-rectangular", "window", "softcap"})
_SUPPORTS |= {"alibi", "gqa", "unaligned-head", "wide-head", "strided", "expanded", "far"}
_SUPPORTS |= {"strided-head", "empty-rows", "one-key", "no-keys", "varlen", "empty-sequences"}
_SUPPORTS |= {"paged", "page-256", "left-padding", "splits", "dropout", "backward", "lse"}

CANDIDATE = FlashAttn2(name="flash-attn-2", supports=_SUPPORTS, lse_on_empty_rows=LSE_PLUS_INF)
#: Its gradients are promised to be the same bits each time, at the price of time and memory.
DETERMINISTIC = FlashAttn2(
    name="flash-attn-2-deterministic",
    supports=_SUPPORTS | {"deterministic"},
    lse_on_empty_rows=LSE_PLUS_INF,
    deterministic=True,
)
