"""The cases of the attention suite: shapes, masks and inputs chosen to wake known errors.

Multiples of 128 leave many known errors asleep; the twelve shapes here, in two types and two kinds
of input, wake all of those that the design lists. Imports nothing, so that the supervisor can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Every feature that a case can ask of a candidate.
FEATURES = frozenset(
    {
        "fp16",
        "bf16",
        "fp32",
        "causal",  # aligned bottom-right, square
        "causal-rectangular",  # aligned bottom-right, seqlen_q != seqlen_k
        "window",
        "softcap",
        "alibi",
        "gqa",
        "unaligned-head",  # a head dimension that is no multiple of 8
        "wide-head",  # a head dimension above 128
        "strided",  # q, k and v are views of one packed tensor
        "empty-rows",  # queries that see no key
        "one-key",
        "no-keys",  # seqlen_k = 0
    }
)


@dataclass(frozen=True)
class Case:
    """One call of an attention kernel: its shape, mask, type and kind of input.

    ``kind`` is "diffuse" (normal) or "peaked" (q and k doubled, V coded by position): each misses
    errors that the other sees. ``window`` counts keys left and right, -1 is without limit.
    """

    seqlen_q: int
    seqlen_k: int
    head_dim: int = 64
    heads: int = 2
    heads_k: int = 2
    causal: bool = False
    window: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    alibi: bool = False
    scale: float | None = None
    packed: bool = False
    dtype: str = "bf16"
    kind: str = "diffuse"
    batch: int = 2

    @property
    def id(self) -> str:
        """A readable name, unique in the suite, that says all that the case is."""
        left, right = self.window
        parts = [
            f"{self.seqlen_q}x{self.seqlen_k}-d{self.head_dim}",
            f"h{self.heads}k{self.heads_k}" if self.heads != self.heads_k else "",
            "causal" if self.causal else "",
            f"window{left}.{right}" if self.window != (-1, -1) else "",
            f"softcap{self.softcap:g}" if self.softcap else "",
            "alibi" if self.alibi else "",
            f"scale{self.scale:g}" if self.scale is not None else "",
            "packed" if self.packed else "",
            self.dtype,
            self.kind,
        ]
        return "-".join(part for part in parts if part)

    @property
    def features(self) -> frozenset[str]:
        """What a candidate must support to be asked this case."""
        asked = {
            "causal": self.causal and self.seqlen_q == self.seqlen_k,
            "causal-rectangular": self.causal and self.seqlen_q != self.seqlen_k,
            "window": self.window != (-1, -1),
            "softcap": self.softcap > 0,
            "alibi": self.alibi,
            "gqa": self.heads != self.heads_k,
            "unaligned-head": self.head_dim % 8 != 0,
            "wide-head": self.head_dim > 128,
            "strided": self.packed,
            "empty-rows": self.causal and self.seqlen_q > self.seqlen_k > 0,
            "one-key": self.seqlen_k == 1,
            "no-keys": self.seqlen_k == 0,
        }
        return frozenset({self.dtype} | {name for name, needed in asked.items() if needed})

    @property
    def uses(self) -> tuple[str, ...]:
        """The uses that a failure of this case concerns: "serving", "training", "everything".

        A server never asks for queries without keys, for keys of the future, nor for ALiBi.
        """
        features = self.features
        if "no-keys" in features:
            return ("everything",)
        ahead = "window" in features and not self.causal and self.window[1] != 0
        if ahead or features & {"alibi", "empty-rows"}:
            return ("training", "everything")
        return ("serving", "training", "everything")


_TWELVE = (
    Case(128, 128),
    Case(113, 203, heads=4, causal=True),
    Case(203, 113, 80, heads=4, heads_k=1, causal=True),
    Case(97, 160, 128, window=(31, 7)),
    Case(200, 200, heads=4, causal=True, window=(33, 0)),
    Case(128, 217, causal=True, softcap=15.0),
    Case(108, 256, 40, heads=4, alibi=True),
    Case(100, 130, causal=True, alibi=True),
    Case(1, 339, 128, heads=8),
    Case(3, 799, 128, heads=4, causal=True),
    Case(257, 257, 111, causal=True),
    Case(64, 1100),
)

_EDGES = (
    Case(5, 1, kind="peaked"),
    Case(130, 2, causal=True, kind="peaked", dtype="fp16"),
    Case(77, 77, 256, causal=True, dtype="fp16"),
    Case(96, 96, causal=True, scale=0.3, packed=True),
    # Last, since it is known to kill its process: no fresh child has to follow.
    Case(128, 0),
)


def suite() -> tuple[Case, ...]:
    """Return every case: the twelve shapes in two types and two kinds of input, then the edges."""
    grid = tuple(
        replace(shape, dtype=dtype, kind=kind)
        for shape in _TWELVE
        for dtype in ("fp16", "bf16")
        for kind in ("diffuse", "peaked")
    )
    return grid + _EDGES
