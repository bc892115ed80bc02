"""vLLM's Triton kernel, `unified_attention`: what vLLM runs where FlashAttention does not.

Its keys are in pages: those of another call are put into pages of 16 first, vLLM's smallest, as
vLLM itself does. What follows is of 0.24.0 to 0.33.0, the kernel and the backend that calls it
(`triton_attn.py`): heads from 32 on, the same for q, k and v; pages of a multiple of 16 rows; as
many keys as queries, or more, under a causal mask; a window to the left of it, or one as wide on
both sides; one ALiBi slope for each head, under a causal mask, whose bias differs from the usual by
a constant of each row; splits, a power of two, for decoding alone; no LSE. In float32 it multiplies
in TF32 on a GPU, which no judge of float32 can pass.

On a CPU Triton's interpreter runs it, from the files of the wheel (`vllm_hollow`); its product of
bfloat16 is broken there, and float32 is float32.
"""

from __future__ import annotations

import importlib
import inspect
import os
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates import vllm_hollow
from pinproof_cell.candidates.distribution import Distributed
from pinproof_cell.candidates.packing import paged, unpacked
from pinproof_cell.candidates.refusal import asserting, refuse, wants_pages

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call
    from pinproof_cell.layout import Layout

#: Where the kernel is, and where it was before vLLM 0.17.
MODULES = (
    "vllm.v1.attention.ops.triton_unified_attention",
    "vllm.attention.ops.triton_unified_attention",
)
PAGE = 16
#: At most a tile of 128 keys and a block of 32 queries lie behind the last key.
BEHIND = 160 // PAGE
#: The backend cuts the keys of a decode into so many segments, where the batch is small.
SEGMENTS, LEAST_GRID = 16, 128


@dataclass(frozen=True, kw_only=True)
class VllmTriton(Distributed):
    """`unified_attention`, compiled for a GPU or interpreted."""

    interpreted: bool
    name: str = "vllm-triton"
    origin: str = "vllm"

    def missing(self) -> str | None:
        """Import the kernel."""
        if self.interpreted and os.environ.get("TRITON_INTERPRET") != "1":
            return "on a CPU it runs in Triton's interpreter: TRITON_INTERPRET is not 1"
        _kernel(self.interpreted)
        return None

    def forward(self, call: Call) -> tuple[Tensor, None]:
        """Attend. Raises NotImplementedError for what the kernel does not take."""
        import torch

        refuse(self, call)
        wants_pages(self, call, 16)
        causal, window = self._mask(call)
        slopes = self._slopes(call, causal)
        batch, layout = paged(call, PAGE)
        kernel = _kernel(self.interpreted)
        # It reads entries behind a sequence's last page, which vLLM's tables have: page 0.
        table = torch.nn.functional.pad(layout.block_table, (0, BEHIND))
        # Rows that the kernel leaves out must show.
        out = torch.full_like(batch.q, torch.nan, memory_format=torch.contiguous_format)
        with asserting(self):
            kernel.unified_attention(
                q=batch.q,
                k=batch.k,
                v=batch.v,
                out=out,
                cu_seqlens_q=layout.starts_q,
                max_seqlen_q=layout.max_q,
                seqused_k=layout.lengths_k,
                max_seqlen_k=layout.max_k,
                softmax_scale=call.scale,
                causal=causal,
                window_size=window,
                block_table=table,
                softcap=call.softcap,
                q_descale=None,
                k_descale=None,
                v_descale=None,
                alibi_slopes=slopes,
                sinks=call.sinks,
                **self._segments(batch, layout, kernel),
            )
        return unpacked(out, call), None

    def _mask(self, call: Call) -> tuple[bool, tuple[int, int]]:
        """Return the kernel's causal flag and window, which are those of the call."""
        left, right = call.limits
        if call.q.shape[-1] < 32:
            raise NotImplementedError(f"{self.name} takes heads from 32 on")
        if call.layout is not None and _sees_nothing(call.layout, right):
            raise NotImplementedError(f"{self.name} takes no queries that see no key")
        if right == 0:
            return True, (left, 0 if left >= 0 else -1)
        if left != right:
            raise NotImplementedError(f"{self.name} takes no window ({left}, {right})")
        return False, (left, right)

    def _slopes(self, call: Call, causal: bool) -> Tensor | None:
        """Return one slope for each head."""
        slopes = call.alibi_slopes
        if slopes is None:
            return None
        if not causal or call.sinks is not None:
            raise NotImplementedError(f"{self.name} takes ALiBi under a causal mask, without sinks")
        if slopes.dim() == 2 and bool((slopes != slopes[:1]).any()):
            raise NotImplementedError(f"{self.name} takes the same ALiBi slopes for every sequence")
        return slopes if slopes.dim() == 1 else slopes[0].contiguous()

    def _segments(self, call: Call, layout: Layout, kernel: ModuleType) -> dict[str, Any]:
        """Return the scratch memory of split keys, as the backend gives it."""
        import torch

        known = inspect.signature(kernel.unified_attention).parameters
        decode = layout.max_q == 1 and "seq_threshold_3D" in known
        if call.splits > 1 and (not decode or call.splits & (call.splits - 1)):
            raise NotImplementedError(f"{self.name} takes splits, a power of two, for decoding")
        if not decode or call.splits == 1:
            return {}
        rows, heads, head_dim = call.q.shape
        segments = call.splits or SEGMENTS
        shape = (rows, heads, segments)
        wide = 1 << (head_dim - 1).bit_length()
        sizes = {"output": (*shape, wide), "max": shape, "expsum": shape}
        return {
            "seq_threshold_3D": rows if call.splits else LEAST_GRID // call.k.shape[2],
            "num_par_softmax_segments": segments,
            **{
                f"softmax_segm_{key}": torch.full(
                    size, torch.nan, dtype=torch.float32, device=call.q.device
                )
                for key, size in sizes.items()
            },
        }


@cache
def _kernel(interpreted: bool) -> ModuleType:
    """Import the module of the kernel, from where this version of vLLM has it."""
    load = vllm_hollow.load if interpreted else importlib.import_module
    try:
        return load(MODULES[0])
    except ModuleNotFoundError as error:
        if error.name == "vllm" or not MODULES[0].startswith(str(error.name)):
            raise
        return load(MODULES[1])


def _sees_nothing(layout: Layout, right: int) -> bool:
    """Say if a query of some sequence sees no key, `right` keys ahead of its own place, -1: all."""
    queries = layout.starts_q.diff()
    needed = queries.clamp(max=1)
    if right >= 0:
        needed = needed.maximum(queries - right)
    return bool((layout.lengths_k < needed).any())


_SUPPORTS = frozenset({"fp16", "bf16", "causal", "causal-rectangular", "window", "softcap"})
_SUPPORTS |= {"alibi", "gqa", "unaligned-head", "wide-head", "strided", "one-key", "varlen"}
_SUPPORTS |= {"empty-sequences", "paged", "page-16", "page-64", "page-256", "splits", "sinks"}

COMPILED = VllmTriton(interpreted=False, supports=_SUPPORTS)
INTERPRETED = VllmTriton(
    interpreted=True, supports=_SUPPORTS - {"bf16"} | {"fp32"}, needs_cuda=False
)
#: The one that fits this process.
CANDIDATE = INTERPRETED if os.environ.get("TRITON_INTERPRET") == "1" else COMPILED
