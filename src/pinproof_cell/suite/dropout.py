"""Which keys a kernel's dropout left in: read through its output, since no kernel tells them.

With q = 0 every visible key has the same weight, and V of ones and zeros, one column per key, shows
which of them are still there. torch's generator is seeded before each call, and what a kernel draws
depends on shapes alone, so that the mask is that of the call itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.judge.findings import Finding
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite.trial import Trial

#: FlashAttention compares 8 random bits, so that its probability is off by up to 1 / 255.
GRAIN = 1 / 255
#: How many standard deviations the share of kept keys may be off.
CHANCE = 5.0
#: Masks that agree are strange only where chance makes them agree more rarely than this.
RARE = 1e-9


def keep(trial: Trial, call: Call) -> Tensor:
    """Return which keys stay in, bool (batch, nheads, seqlen_q, seqlen_k); hidden ones are True.

    Of a packed batch (1, nheads, total_q, max_k), as `pinproof_cell.oracle.forward` takes it.
    Raises CallError.
    """
    width, dim = _longest(call), call.v.shape[-1]
    parts = []
    for first in range(0, width, dim):
        out, _ = trial.forward(_probe(call, first))
        shown = out if call.layout is None else out[None]
        parts.append(shown.transpose(1, 2) != 0)
    return torch.cat(parts, -1)[..., :width] | ~visible(call)


def implausible(trial: Trial, call: Call, kept: Tensor) -> Iterator[Finding]:
    """Yield what is strange about a mask: its share of keys, or that another seed gives it too.

    Raises CallError.
    """
    seen = visible(call).expand_as(kept)
    pairs, left = int(seen.sum()), int((kept & seen).sum())
    share, wanted = left / pairs, 1 - call.dropout
    allowed = CHANCE * (wanted * call.dropout / pairs) ** 0.5 + GRAIN
    if abs(share - wanted) > allowed:
        text = (
            f"dropout left {share:.4f} of the keys in, not {wanted:.4f}, give or take {allowed:.4f}"
        )
        yield Finding("dropout", "dropout_share", text, abs(share - wanted), allowed)
    agree = wanted**2 + call.dropout**2  # the chance that one key fares alike in two masks
    other = keep(replace(trial, seed=trial.seed + 1), call)
    if agree**pairs < RARE and torch.equal(other, kept):
        text = "dropout leaves the same keys in under another seed of torch's generator"
        yield Finding("dropout", "dropout_seed", text)
    yield from _repeated(kept, seen, agree)


#: So many pairs leave no more to chance than ten standard deviations.
ENOUGH = 1000
#: What a mask could repeat along: axis, how far apart, and words. Tiles have 16 keys and more.
_NEIGHBOURS = (
    (0, 1, "elements of the batch"),
    (1, 1, "heads"),
    (2, 1, "rows"),
    (3, 16, "keys 16 apart"),
    (3, 64, "keys 64 apart"),
)


def _repeated(kept: Tensor, seen: Tensor, agree: float) -> Iterator[Finding]:
    """Yield along what the mask repeats itself; `agree` is the chance that two keys fare alike.

    The limit is half way from there to all: far beyond chance, and below what a mask shows that
    is used again.
    """
    limit = (1 + agree) / 2
    for axis, apart, words in _NEIGHBOURS:
        both = seen & seen.roll(apart, axis)
        if kept.shape[axis] <= apart or int(both.sum()) < ENOUGH:
            continue
        share = float((kept == kept.roll(apart, axis))[both].double().mean())
        if share > limit:
            text = f"dropout treats {words} alike in {share:.4f} of the cases, above {limit:.4f}"
            yield Finding("dropout", "dropout_repeats", text, share, limit)


def visible(call: Call) -> Tensor:
    """Return which keys each row sees, broadcastable to what `keep` returns."""
    device, width = call.q.device, _longest(call)
    if call.layout is None:
        own = torch.arange(call.q.shape[1], device=device) + call.k.shape[1] - call.q.shape[1]
        return oracle.visible(own[:, None] - torch.arange(width, device=device), call.limits)
    rows = []
    for (begin, end), length in zip(
        call.layout.rows(), call.layout.lengths_k.tolist(), strict=True
    ):
        own = torch.arange(end - begin, device=device)[:, None] + length - (end - begin)
        places = torch.arange(width, device=device)
        rows.append(oracle.visible(own - places, call.limits) & (places < length))
    return torch.cat(rows)


def _longest(call: Call) -> int:
    return call.k.shape[1] if call.layout is None else call.layout.max_k


def _probe(call: Call, first: int) -> Call:
    """Return the call with equal weights, and V that shows the keys from `first` on."""
    v = torch.zeros_like(call.v)
    columns = torch.eye(call.v.shape[-1], dtype=v.dtype, device=v.device)[:, None]
    if call.layout is None:
        some = v[:, first : first + columns.shape[0]]
        some.copy_(columns[: some.shape[1]].expand_as(some))
    else:
        for index in range(call.layout.batch):
            # A view: packed sequences lie in one piece.
            some = call.layout.keys(v, index)[first : first + columns.shape[0]]
            some.copy_(columns[: some.shape[0]].expand_as(some))
    return replace(
        call, q=torch.zeros_like(call.q), v=v, softcap=0.0, alibi_slopes=None, sinks=None
    )
