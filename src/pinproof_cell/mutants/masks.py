"""Mutants of what a query sees: causal, windows, the tail of the keys, empty rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants import Mutant, always
from pinproof_cell.mutants.emulation import (
    HONEST,
    Call,
    Partial,
    State,
    Tile,
    changed,
    scores,
    seen,
    values,
)

BLOCK = HONEST.block


def _ceil(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _call(edit: Callable[[Call], dict[str, Any]]) -> Callable[[Call], Call]:
    return lambda call: replace(call, **edit(call))


def _window(step_left: int, step_right: int) -> Callable[[Call], Call]:
    """Return a step that moves the limits of a window, where there is one."""

    def prepare(call: Call) -> Call:
        left = call.left + step_left if call.left >= 0 else -1
        right = call.right + step_right if call.right > 0 else call.right
        return replace(call, left=left, right=right)

    return prepare


def _causal_step(step: int) -> Callable[[Call], Call]:
    return _call(lambda call: {"offset": call.offset + step} if call.causal else {})


def _blind_tiles(call: Call) -> Tensor:
    """Return the causal mask by whole tiles: a tile that any row may see is seen by all."""
    if not call.causal:
        return seen(call)
    ahead = (torch.arange(call.queries)[:, None] // BLOCK + 1) * BLOCK + call.offset
    loose = replace(call, right=-1)
    return seen(loose) & (torch.arange(call.keys) < ahead)


def _no_diagonal(call: Call) -> Tensor:
    """Return the mask without the tiles that the diagonal cuts."""
    if not call.causal:
        return seen(call)
    whole = (torch.arange(call.queries)[:, None] + call.offset + 1) // BLOCK * BLOCK
    return seen(call) & (torch.arange(call.keys) < whole)


def _left_edge_unmasked(call: Call) -> Tensor:
    """Return the mask with the window's first tile seen whole."""
    if call.left < 0:
        return seen(call)
    first = torch.arange(call.queries)[:, None] + call.offset - call.left
    loose = replace(call, left=-1)
    return seen(loose) & (torch.arange(call.keys) >= first.clamp_min(0) // BLOCK * BLOCK)


def _packed_rows(call: Call) -> Tensor:
    """Return the causal mask with rows counted as if the heads of a group were packed in."""
    if not call.causal:
        return seen(call)
    rows = torch.arange(call.queries)[:, None] // call.group
    return seen(replace(call, right=-1)) & (torch.arange(call.keys) <= rows + call.offset)


def _padded_scores(call: Call) -> Tensor:
    """Return the logits with the last tile filled up with zeros that nobody hides."""
    spare = _ceil(call.keys) - call.keys
    return torch.nn.functional.pad(scores(call), (0, spare))


def _padded_seen(call: Call) -> Tensor:
    spare = _ceil(call.keys) - call.keys
    return torch.nn.functional.pad(seen(call), (0, spare), value=call.right < 0)


def _padded_values(call: Call) -> Tensor:
    return torch.nn.functional.pad(values(call), (0, 0, 0, _ceil(call.keys) - call.keys))


def _clamped(call: Call) -> Call:
    """Return the call with the last key read again for every place beyond it."""
    index = torch.arange(_ceil(call.keys)).clamp_max(call.keys - 1)
    return replace(call, k=call.k[:, :, index], v=call.v[:, :, index]) if call.keys else call


def _drop(count: Callable[[int], int]) -> Callable[[Call], Tensor]:
    return lambda call: seen(call) & (torch.arange(call.keys) < count(call.keys))


def _sentinel_close(state: State) -> Partial:
    return state.out / state.total[..., None], state.maximum + torch.log(state.total)


def _sentinel_fold(state: State, tile: Tile) -> State:
    """Fold with a finite number for "hidden": a row that sees nothing weighs all keys alike."""
    logits = tile.scores.clamp_min(-5e4)
    maximum = torch.maximum(state.maximum, logits.amax(-1))
    p = torch.exp(logits - maximum[..., None])
    shrink = torch.exp(state.maximum - maximum)
    out = state.out * shrink[..., None] + p.to(tile.dtype).float() @ tile.values
    return State(out, maximum, state.total * shrink + p.sum(-1))


def _unguarded_fold(state: State, tile: Tile) -> State:
    """Fold without the guard of (-inf) - (-inf)."""
    maximum = torch.maximum(state.maximum, tile.scores.amax(-1))
    p = torch.exp(tile.scores - maximum[..., None])
    shrink = torch.exp(state.maximum - maximum)
    out = state.out * shrink[..., None] + p.to(tile.dtype).float() @ tile.values
    return State(out, maximum, state.total * shrink + p.sum(-1))


def _mask(id: str, bug: str, stands_for: str, **steps: Any) -> Mutant:  # noqa: A002
    return Mutant(
        id=id, family="masks", bug=bug, stands_for=stands_for, make=always(changed(**steps))
    )


MUTANTS = (
    _mask(
        "causal-top-left",
        "B12",
        "causal aligned to the top-left corner",
        prepare=_call(lambda call: {"offset": 0} if call.causal else {}),
    ),
    _mask("causal-strict", "", "`<` for `<=` on the diagonal", prepare=_causal_step(-1)),
    _mask("causal-one-ahead", "", "the next key is seen too", prepare=_causal_step(1)),
    _mask(
        "causal-ignored",
        "B80",
        "the causal flag is silently ignored",
        prepare=_call(lambda call: {"right": call.window[1]}),
    ),
    _mask("causal-by-tile", "B20", "the diagonal's tiles are not masked", seen=_blind_tiles),
    _mask("causal-no-diagonal", "B20", "the diagonal's tiles are skipped", seen=_no_diagonal),
    _mask("causal-packed-rows", "B02", "packed grouped heads count as rows", seen=_packed_rows),
    _mask(
        "causal-padded-offset",
        "B40",
        "the diagonal starts from padded lengths",
        prepare=_call(lambda call: {"offset": _ceil(call.keys) - _ceil(call.queries)}),
    ),
    _mask("window-left-short", "B17", "one key less on the left", prepare=_window(-1, 0)),
    _mask("window-left-long", "B17", "one key more on the left", prepare=_window(1, 0)),
    _mask("window-right-short", "B17", "one key less on the right", prepare=_window(0, -1)),
    _mask("window-right-long", "B17", "one key more on the right", prepare=_window(0, 1)),
    _mask(
        "window-ignored",
        "B19",
        "the window is silently ignored",
        prepare=_call(lambda call: {"left": -1, "right": 0 if call.causal else -1}),
    ),
    _mask(
        "window-right-ignored",
        "B19",
        "only the left limit is kept",
        prepare=_call(lambda call: {"right": 0 if call.causal else -1}),
    ),
    _mask(
        "window-top-left",
        "B19",
        "the window moves along the wrong diagonal",
        prepare=_call(lambda call: {"offset": 0} if call.window != (-1, -1) else {}),
    ),
    _mask(
        "window-minus-one-is-local",
        "B15",
        "window (-1, -1) is taken for a window",
        prepare=_call(lambda call: {"right": max(call.right, 0)}),
    ),
    _mask("window-left-by-tile", "B17", "no mask at the left edge", seen=_left_edge_unmasked),
    _mask(
        "tail-weighs-zero",
        "B22",
        "keys beyond the end score 0, not -inf",
        scores=_padded_scores,
        seen=_padded_seen,
        values=_padded_values,
    ),
    _mask("tail-repeats-last-key", "B38", "keys beyond the end are the last", prepare=_clamped),
    _mask(
        "tail-tile-dropped",
        "B30",
        "the last part of a tile is not visited",
        seen=_drop(lambda keys: keys // BLOCK * BLOCK),
    ),
    _mask("last-key-dropped", "B30", "one key too few", seen=_drop(lambda keys: keys - 1)),
    _mask(
        "finite-sentinel",
        "B23",
        "hidden is -5e4: rows without keys average V",
        fold=_sentinel_fold,
        close=_sentinel_close,
    ),
    _mask(
        "hidden-tile-is-nan",
        "B34",
        "(-inf) - (-inf) in a tile that hides all",
        fold=_unguarded_fold,
    ),
)
