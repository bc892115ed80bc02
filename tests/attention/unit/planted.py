"""Kernels with planted faults, which compute-sanitizer must find; right answers all the same."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _copy(source, target, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # The mask that the load lacks is the planted fault.
    tl.store(target + place, tl.load(source + place), mask=place < size)


def right(
    q: Any, k: Any, v: Any, *, softmax_scale: Any = None, causal: bool = False, **_: Any
) -> Any:
    """Attend, causal bottom-right."""
    group = q.shape[2] // k.shape[2]
    queries, keys, values = (
        x.float().transpose(1, 2)
        for x in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2))
    )
    logits = queries @ keys.mT * (softmax_scale or q.shape[-1] ** -0.5)
    if causal:
        past = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device)
        logits.masked_fill_(~past.tril(k.shape[1] - q.shape[1]), -torch.inf)
    out = (logits.softmax(-1) @ values).transpose(1, 2).to(q.dtype)
    return out.contiguous(), logits.logsumexp(-1)


right.supports = frozenset(  # type: ignore[attr-defined]
    {"bf16", "fp16", "causal", "causal-rectangular", "gqa", "lse"}
)


def beyond(q: Any, k: Any, v: Any, **rest: Any) -> Any:
    """Attend; a Triton kernel beside it reads behind the end of K."""
    size = k.numel()
    _copy[(triton.cdiv(size, 4096) + 1,)](k, torch.empty_like(k), size, BLOCK=4096)
    return right(q, k, v, **rest)


def unwritten(q: Any, k: Any, v: Any, **rest: Any) -> Any:
    """Attend, and hand out an LSE whose last row was never written."""
    out, lse = right(q, k, v, **rest)
    left = torch.empty_like(lse)
    left[..., :-1] = lse[..., :-1]
    return out, left


beyond.supports = unwritten.supports = right.supports  # type: ignore[attr-defined]
