"""Mutants of split keys and of the merge of their parts. The honest one has three splits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pinproof_cell.mutants.emulation import changed
from pinproof_cell.mutants.emulation.softmax import (
    Partial,
    State,
    anchored,
    in_order,
    merge,
    summed,
)
from pinproof_cell.mutants.mutant import Family

#: The honest kernel that these are made from: three splits where the call names no number.
SPLITS = "emulation in splits"
SPLIT = changed(splits=3)


def _unweighted(partials: Sequence[Partial]) -> Partial:
    _, lse = merge(partials)
    return torch.stack([out for out, _ in partials]).mean(0), lse


def _by_maximum(partials: Sequence[Partial]) -> Partial:
    """Weigh by a maximum of the LSEs and forget to normalise by their sum."""
    lses = torch.stack([lse for _, lse in partials])
    anchor = anchored(lses.amax(0))
    factors = [torch.exp(lse - anchor) for lse in lses]
    return summed(partials, factors), torch.logsumexp(lses, 0)


def _first_32(partials: Sequence[Partial]) -> Partial:
    return merge(partials[:32])


def _maximum_lse(partials: Sequence[Partial]) -> Partial:
    out, _ = merge(partials)
    return out, torch.stack([lse for _, lse in partials]).amax(0)


def _last_lse(partials: Sequence[Partial]) -> Partial:
    return merge(partials)[0], partials[-1][1]


def _unguarded(partials: Sequence[Partial]) -> Partial:
    """Merge without a guard for rows that no split has seen a key of."""
    lses = torch.stack([lse for _, lse in partials])
    top = lses.amax(0)
    scales = torch.exp(lses - top)
    total = scales.sum(0)
    return summed(partials, list(scales / total)), top + torch.log(total)


def _no_empty(state: State) -> Partial:
    """Normalise a split without keys by its sum of zero."""
    return state.out / state.total[..., None], state.maximum + torch.log(state.total)


def _stale(partials: Sequence[Partial]) -> Partial:
    """Merge, for a split that saw no key of a row, what the split before it left there."""
    kept = [partials[0]]
    for out, lse in partials[1:]:
        before, none = kept[-1], torch.isneginf(lse)
        kept.append(
            (torch.where(none[..., None], before[0], out), torch.where(none, before[1], lse))
        )
    return merge(kept)


def _wrong_order(partials: Sequence[Partial]) -> Partial:
    """Read the LSEs of the splits with the strides of (rows, split)."""
    lses = torch.stack([lse for _, lse in partials])
    wrong = lses.flatten().reshape(*lses.shape[1:], lses.shape[0]).movedim(-1, 0)
    out, _ = merge([(out, lse) for (out, _), lse in zip(partials, wrong, strict=True)])
    return out, merge(partials)[1]


def _lost(cut: list[range], splits: int) -> list[list[range]]:
    return in_order(cut, splits)[:-1]


def _gap(cut: list[range], splits: int) -> list[list[range]]:
    """Begin every split but the first one key late."""
    return _moved(in_order(cut, splits), 1)


def _overlap(cut: list[range], splits: int) -> list[list[range]]:
    """Begin every split but the first one key early."""
    return _moved(in_order(cut, splits), -1)


def _moved(shares: list[list[range]], step: int) -> list[list[range]]:
    return [shares[0], *([_from(share[0], step), *share[1:]] for share in shares[1:] if share)]


def _from(tile: range, step: int) -> range:
    """Return a tile that begins elsewhere; its last key stays."""
    return range(min(tile.start + step, tile.stop - 1), tile.stop)


_split = Family(name="splits", base=SPLIT, against=SPLITS)

MUTANTS = (
    _split("split-lost", "B29", "the last split is not merged", schedule=_lost),
    _split("split-gap", "B32", "one key lost where splits meet", schedule=_gap),
    _split("split-overlap", "B32", "one key twice where splits meet", schedule=_overlap),
    _split("splits-from-32-lost", "B32", "a merge of 32 parts, and no more", merge=_first_32),
    _split("split-unweighted", "B32", "parts averaged without their weights", merge=_unweighted),
    _split("split-unnormalised", "B32", "weights do not sum to one", merge=_by_maximum),
    _split("split-lse-maximum", "B26", "LSE of the largest split alone", merge=_maximum_lse),
    _split("split-lse-last", "B25", "LSE of the last split alone", merge=_last_lse),
    _split("split-lse-strides", "B26", "LSEs of splits by wrong strides", merge=_wrong_order),
    _split("split-unguarded", "B28", "merge of two empty parts is NaN", merge=_unguarded),
    _split("split-empty-is-nan", "B29", "an empty split divides by zero", close=_no_empty),
    _split("split-stale", "B43", "an empty split leaves an older part", merge=_stale),
)
