"""What a correct kernel rounds on the way to P: how far off its logits are, how many P differ."""

from __future__ import annotations

import torch
from torch import Tensor

from pinproof_cell.call import Call

#: So many P are looked at, and are told apart where their logits differ by this.
LOOKED_AT, APART = 1 << 16, 2.0**-16
#: Where P fall into so few steps of their type, all that fall into one are rounded alike.
FEW_STEPS = 8


def of_logits(call: Call, largest: float, product: float) -> float:
    """Return the error of a logit in units of 2^-24, the roundoff of float32.

    `largest` is the largest visible |logit|, `product` the largest |scaled product| before softcap
    and ALiBi. A sum of d products is rounded d times, each time by up to half a unit in the last
    place of what has come together (independent, uniform; Higham, Accuracy and Stability, 2.8).
    Where all have one sign that grows to the product: an RMS of sqrt(d) / 4 times it, and twice
    that here, since all of a row is off by it, and the worst of many rows is seen. Where they
    cancel it is a random walk towards |q| |k|: an RMS of 0.3 times that, here 1 / 2, since tensor
    cores truncate. Scaling, and taking the maximum or the log-sum-exp off, rounds the logit twice.
    A softcap is that many times tanh, which by way of exp() is 1 less a quotient near 1: however
    small the tanh, two roundings of 1.
    """
    if not call.q.numel() or not call.k.numel():
        return 0.0
    longest = [float(x.double().square().sum(-1).max()) ** 0.5 for x in (call.q, call.k)]
    walk = longest[0] * longest[1] * call.scale / 2
    added = call.q.shape[-1] ** 0.5 / 2 * product + walk
    return 2 * largest + 2 * call.softcap + added


def levels(scores: Tensor, seen: Tensor, dtype: torch.dtype) -> int:
    """Return how many different distances from their row's largest the visible logits have.

    Equal P are rounded alike: their errors average over as many as differ, not over all. Where they
    fall into a few steps of `dtype`, these are counted; where they fill many, an error is as often
    up as down, however near its neighbours are. The largest itself is left out, since there P is 1.
    """
    if not scores.numel():
        return 0
    hidden = scores.masked_fill(~seen, -torch.inf)
    below = (hidden - hidden.amax(-1, keepdim=True)).flatten()
    some = below[:: max(1, below.numel() // LOOKED_AT)]
    some = some[some.isfinite()]
    step = torch.finfo(dtype).eps / 2
    steps = _different(some, step)
    return steps if step > APART and steps <= FEW_STEPS else _different(some, APART)


def _different(below: Tensor, apart: float) -> int:
    return int(torch.unique((below[below < -apart] / apart).round()).numel())
