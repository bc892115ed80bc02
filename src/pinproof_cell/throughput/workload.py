"""What throughput is measured on: the points, their work in FLOP and bytes, the roofline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

#: Dense bf16 FLOP per clock and SM with fp32 accumulation, by capability: A100, H100 and B200 by
#: their data sheets; 512 for consumer parts, of which the workstation ones do twice as much.
FLOP_PER_CLOCK = {
    "sm_80": 2048,
    "sm_86": 1024,
    "sm_89": 1024,
    "sm_90": 4096,
    "sm_100": 8192,
    "sm_103": 8192,
    "sm_120": 1024,
    "sm_121": 1024,
}
#: A launch faster than this share of what the machine can do has not done the work.
ROOF = 1.02


@dataclass(frozen=True, kw_only=True)
class Point:
    """One shape to time: forward, dense, masks aligned bottom-right; `window` as flash-attn's."""

    name: str
    batch: int
    seqlen_q: int
    seqlen_k: int
    heads: int
    heads_k: int
    head_dim: int
    causal: bool = False
    window: tuple[int, int] = (-1, -1)

    @property
    def features(self) -> frozenset[str]:
        """What an implementation must support to run this point, in the words of `cases`."""
        square = self.seqlen_q == self.seqlen_k
        wanted = {
            "bf16": True,
            "causal": self.causal and square,
            "causal-rectangular": self.causal and not square,
            "gqa": self.heads != self.heads_k,
            "window": self.window != (-1, -1),
        }
        return frozenset(name for name, needed in wanted.items() if needed)

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of the call beside q, k and v."""
        window = {} if self.window == (-1, -1) else {"window_size": self.window}
        return {"causal": self.causal, **window}

    def pairs(self) -> int:
        """Return how many (query, key) pairs the masks leave, for one head of one sequence."""
        if not self.causal and self.window == (-1, -1):
            return self.seqlen_q * self.seqlen_k
        left, right = self.window
        right = 0 if self.causal else right
        total = 0
        for place in range(self.seqlen_k - self.seqlen_q, self.seqlen_k):
            last = self.seqlen_k - 1 if right < 0 else min(self.seqlen_k - 1, place + right)
            first = 0 if left < 0 else max(0, place - left)
            total += max(0, last - first + 1)
        return total

    def flop(self) -> int:
        """Return the FLOP of one forward: two products, 2 FLOP per element, visible pairs only."""
        return 4 * self.head_dim * self.heads * self.batch * self.pairs()

    def bytes(self, element: int = 2) -> int:
        """Return the least bytes of one forward: q, k, v read once and the output written."""
        queries = 2 * self.batch * self.seqlen_q * self.heads * self.head_dim
        keys = 2 * self.batch * self.seqlen_k * self.heads_k * self.head_dim
        return element * (queries + keys)


_TINY = Point(name="", batch=1, seqlen_q=128, seqlen_k=128, heads=1, heads_k=1, head_dim=128)
#: 32 query heads on 8 key heads of 128, as in the Llama family.
_LLAMA = replace(_TINY, batch=2, seqlen_q=4096, seqlen_k=4096, heads=32, heads_k=8)

GPU_POINTS = (
    replace(_LLAMA, name="prefill-d128-causal-4k", causal=True),
    replace(
        _LLAMA, name="prefill-d64-causal-4k", causal=True, batch=4, heads_k=32, head_dim=64
    ),
    replace(_LLAMA, name="prefill-d128-full-4k"),
    replace(_LLAMA, name="decode-d128-b32-8k", batch=32, seqlen_q=1, seqlen_k=8192),
    replace(
        _LLAMA, name="prefill-d128-window1k-16k", causal=True, window=(1023, 0),
        batch=1, seqlen_q=16384, seqlen_k=16384,
    ),
)  # fmt: skip

#: Tiny: the reference runs in Triton's interpreter, at milliseconds per tile.
CPU_POINTS = (
    replace(_TINY, name="prefill-d64-causal-128", causal=True, head_dim=64),
    replace(_TINY, name="prefill-d128-full-256", seqlen_q=256, seqlen_k=256),
)


def points(target: str) -> tuple[Point, ...]:
    """Return the points of a target, most telling first."""
    return CPU_POINTS if target == "cpu" else GPU_POINTS


@dataclass(frozen=True, kw_only=True)
class Roof:
    """What the machine can do at most: FLOP/s, bytes/s; None where that is not known."""

    flops: float | None
    bandwidth: float | None

    def share(self, point: Point, seconds: float) -> float | None:
        """Return the share of the roofline that one forward in `seconds` reaches, or None."""
        if self.flops is None or self.bandwidth is None:
            return None
        return max(point.flop() / self.flops, point.bytes() / self.bandwidth) / seconds
