"""One call of attention: its tensors and everything that it is told, as one value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from pinproof_cell.layout import Layout

#: The keywords that every provider takes; the others are named only where a call uses them.
ALWAYS = frozenset({"softmax_scale", "causal", "window_size", "softcap", "alibi_slopes"})


@dataclass(frozen=True, kw_only=True)
class Call:
    """Attend q (batch, seqlen_q, nheads, headdim) to k and v (batch, seqlen_k, nheads_k, headdim).

    v may have another head dimension than q and k. With a layout the shapes are as
    `pinproof_cell.layout.Layout` says. Masks are aligned bottom-right, softcap comes before ALiBi,
    as in flash-attn; `alibi_slopes` is (nheads,) or (batch, nheads), float32. `sinks`, float32
    (nheads,), is one more logit of each row, which takes its share of the softmax and has no
    value. `dropout` is the probability of leaving a key out; which ones, torch's generator of the
    device decides. `splits` is the number of parts that the keys are cut into, 0 where the kernel
    may choose.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    softmax_scale: float | None = None
    causal: bool = False
    window_size: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    alibi_slopes: Tensor | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0
    splits: int = 0
    layout: Layout | None = None

    @property
    def scale(self) -> float:
        """The softmax scale: 1 / sqrt(headdim) where the call names none."""
        return float(self.q.shape[-1] ** -0.5 if self.softmax_scale is None else self.softmax_scale)

    @property
    def limits(self) -> tuple[int, int]:
        """How many keys left and right of its own place a query sees; -1 is without limit."""
        left, right = self.window_size
        return left, 0 if self.causal else right

    def keywords(self) -> dict[str, Any]:
        """Return the arguments beside q, k and v, as a provider takes them."""
        found = {}
        for item in fields(self)[3:]:
            value = getattr(self, item.name)
            unused = value is None or (not isinstance(value, Tensor | Layout) and not value)
            if item.name in ALWAYS or not unused:
                found[item.name] = value
        return found

    def sequences(self) -> Iterator[Call]:
        """Yield the dense calls, of one sequence each, that this ragged call stands for."""
        if self.layout is None:
            yield self
            return
        rows = self.layout.sequences(self.q, self.k, self.v)
        for index, (q, k, v) in enumerate(rows):
            slopes = self.alibi_slopes
            if slopes is not None and slopes.dim() == 2:
                slopes = slopes[index : index + 1]
            yield replace(self, q=q, k=k, v=v, alibi_slopes=slopes, layout=None)
