"""Mutants of what a query sees: causal, windows, the tail of the keys, empty rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST, Problem
from pinproof_cell.mutants.emulation.softmax import (
    Partial,
    State,
    Tile,
    dropped,
    scores,
    seen,
    values,
    weighed,
)
from pinproof_cell.mutants.mutant import Family

BLOCK = HONEST.block


def _ceil(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _call(edit: Callable[[Problem], dict[str, Any]]) -> Callable[[Problem], Problem]:
    return lambda problem: replace(problem, **edit(problem))


def _window(step_left: int, step_right: int) -> Callable[[Problem], Problem]:
    """Return a step that moves the limits of a window, where there is one."""

    def prepare(problem: Problem) -> Problem:
        left = problem.left + step_left if problem.left >= 0 else -1
        right = problem.right + step_right if problem.right > 0 else problem.right
        return replace(problem, left=left, right=right)

    return prepare


def _causal_step(step: int) -> Callable[[Problem], Problem]:
    return _call(lambda problem: {"offset": problem.offset + step} if problem.causal else {})


def _blind_tiles(problem: Problem) -> Tensor:
    """Return the causal mask by whole tiles: a tile that any row may see is seen by all."""
    if not problem.causal:
        return seen(problem)
    ahead = (torch.arange(problem.queries)[:, None] // BLOCK + 1) * BLOCK + problem.offset
    loose = replace(problem, right=-1)
    return seen(loose) & (torch.arange(problem.keys) < ahead)


def _no_diagonal(problem: Problem) -> Tensor:
    """Return the mask without the tiles that the diagonal cuts."""
    if not problem.causal:
        return seen(problem)
    whole = (torch.arange(problem.queries)[:, None] + problem.offset + 1) // BLOCK * BLOCK
    return seen(problem) & (torch.arange(problem.keys) < whole)


def _left_edge_unmasked(problem: Problem) -> Tensor:
    """Return the mask with the window's first tile seen whole."""
    if problem.left < 0:
        return seen(problem)
    first = torch.arange(problem.queries)[:, None] + problem.offset - problem.left
    loose = replace(problem, left=-1)
    return seen(loose) & (torch.arange(problem.keys) >= first.clamp_min(0) // BLOCK * BLOCK)


def _packed_rows(problem: Problem) -> Tensor:
    """Return the causal mask with rows counted as if the heads of a group were packed in."""
    if not problem.causal:
        return seen(problem)
    rows = torch.arange(problem.queries)[:, None] // problem.group
    return seen(replace(problem, right=-1)) & (torch.arange(problem.keys) <= rows + problem.offset)


def _padded_scores(problem: Problem) -> Tensor:
    """Return the logits with the last tile filled up with zeros that nobody hides."""
    spare = _ceil(problem.keys) - problem.keys
    return torch.nn.functional.pad(scores(problem), (0, spare))


def _padded_seen(problem: Problem) -> Tensor:
    spare = _ceil(problem.keys) - problem.keys
    return torch.nn.functional.pad(seen(problem), (0, spare), value=problem.right < 0)


def _padded_values(problem: Problem, visible: Tensor) -> Tensor:
    read = values(problem, visible[..., : problem.keys])
    return torch.nn.functional.pad(read, (0, 0, 0, _ceil(problem.keys) - problem.keys))


def _padded_dropped(problem: Problem) -> Tensor | None:
    kept = dropped(problem)
    spare = _ceil(problem.keys) - problem.keys
    return None if kept is None else torch.nn.functional.pad(kept, (0, spare), value=1.0)


def _clamped(problem: Problem) -> Problem:
    """Return the problem with the last key read again for every place beyond it."""
    index = torch.arange(_ceil(problem.keys)).clamp_max(problem.keys - 1)
    if not problem.keys:
        return problem
    return replace(problem, k=problem.k[:, :, index], v=problem.v[:, :, index])


def _open_causal(problem: Problem) -> dict[str, Any]:
    """Return no causal limit where a window has no right end of its own."""
    return {"right": -1} if problem.causal and problem.window[1] < 0 <= problem.left else {}


def _overruled(problem: Problem) -> dict[str, Any]:
    """Return no left limit where a causal mask overrules the right end of a window."""
    return {"left": -1} if problem.causal and problem.window[1] > 0 else {}


def _drop(count: Callable[[int], int]) -> Callable[[Problem], Tensor]:
    return lambda problem: seen(problem) & (torch.arange(problem.keys) < count(problem.keys))


def _sentinel_close(state: State) -> Partial:
    return state.out / state.total[..., None], state.maximum + torch.log(state.total)


def _sentinel_fold(state: State, tile: Tile) -> State:
    """Fold with a finite number for "hidden": a row that sees nothing weighs all keys alike."""
    logits = tile.scores.clamp_min(-5e4)
    maximum = torch.maximum(state.maximum, logits.amax(-1))
    p = torch.exp(logits - maximum[..., None])
    shrink = torch.exp(state.maximum - maximum)
    out = state.out * shrink[..., None] + weighed(p, tile)
    return State(out, maximum, state.total * shrink + p.sum(-1))


def _unguarded_fold(state: State, tile: Tile) -> State:
    """Fold without the guard of (-inf) - (-inf)."""
    maximum = torch.maximum(state.maximum, tile.scores.amax(-1))
    p = torch.exp(tile.scores - maximum[..., None])
    shrink = torch.exp(state.maximum - maximum)
    out = state.out * shrink[..., None] + weighed(p, tile)
    return State(out, maximum, state.total * shrink + p.sum(-1))


def _causal_everywhere(problem: Problem) -> Tensor:
    """Return the mask without the tiles above the diagonal, which only a causal one lacks."""
    ahead = (torch.arange(problem.queries)[:, None] // BLOCK + 1) * BLOCK + problem.offset
    visible = seen(problem)
    return visible if problem.causal else visible & (torch.arange(problem.keys) < ahead)


def _hidden_values(problem: Problem, visible: Tensor) -> Tensor:
    """Return the values, those that no query sees too: 0 * NaN is NaN."""
    return problem.v[:, problem.v_head]


def _zero_is_none(problem: Problem) -> dict[str, Any]:
    """Take a limit of 0 for no limit."""
    left = problem.left or -1
    return {"left": left, "right": problem.right if problem.causal else problem.right or -1}


def _ends_at_keys(problem: Problem) -> dict[str, Any]:
    """End a window with a left limit alone as many keys ahead as there are (flash-attention#895).

    It ends there too where its right limit is beyond: that counts as none.
    """
    alone = 0 <= problem.left < problem.keys and not 0 <= problem.right <= problem.keys
    return {"right": problem.keys} if alone else {}


_mask = Family(name="masks")

MUTANTS = (
    _mask(
        "causal-top-left",
        "B12",
        "causal aligned to the top-left corner",
        prepare=_call(lambda problem: {"offset": 0} if problem.causal else {}),
    ),
    _mask("causal-strict", "", "`<` for `<=` on the diagonal", prepare=_causal_step(-1)),
    _mask("causal-one-ahead", "", "the next key is seen too", prepare=_causal_step(1)),
    _mask(
        "causal-ignored",
        "B80",
        "the causal flag is silently ignored",
        prepare=_call(lambda problem: {"right": problem.window[1]}),
    ),
    _mask("causal-by-tile", "B20", "the diagonal's tiles are not masked", seen=_blind_tiles),
    _mask("causal-no-diagonal", "B20", "the diagonal's tiles are skipped", seen=_no_diagonal),
    _mask("causal-packed-rows", "B02", "packed grouped heads count as rows", seen=_packed_rows),
    _mask(
        "causal-padded-offset",
        "B40",
        "the diagonal starts from padded lengths",
        prepare=_call(lambda problem: {"offset": _ceil(problem.keys) - _ceil(problem.queries)}),
    ),
    _mask(
        "window-left-short",
        "B17",
        "one key less on the left",
        prepare=_window(-1, 0),
        needs=("window",),
    ),
    _mask(
        "window-left-long",
        "B17",
        "one key more on the left",
        prepare=_window(1, 0),
        needs=("window",),
    ),
    _mask(
        "window-right-short",
        "B17",
        "one key less on the right",
        prepare=_window(0, -1),
        needs=("window",),
    ),
    _mask(
        "window-right-long",
        "B17",
        "one key more on the right",
        prepare=_window(0, 1),
        needs=("window",),
    ),
    _mask(
        "window-ignored",
        "B19",
        "the window is silently ignored",
        prepare=_call(lambda problem: {"left": -1, "right": 0 if problem.causal else -1}),
        needs=("window",),
    ),
    _mask(
        "window-right-ignored",
        "B19",
        "only the left limit is kept",
        prepare=_call(lambda problem: {"right": 0 if problem.causal else -1}),
        needs=("window",),
    ),
    _mask(
        "window-top-left",
        "B19",
        "the window moves along the wrong diagonal",
        prepare=_call(lambda problem: {"offset": 0} if problem.window != (-1, -1) else {}),
        needs=("window",),
    ),
    _mask(
        "window-left-alone-ends",
        "",
        "a window without a right end has one at the number of keys",
        prepare=_call(_ends_at_keys),
        needs=("window",),
    ),
    _mask(
        "window-minus-one-is-local",
        "B15",
        "window (-1, -1) is taken for a window",
        prepare=_call(lambda problem: {"right": max(problem.right, 0)}),
    ),
    _mask(
        "window-left-by-tile",
        "B17",
        "no mask at the left edge",
        seen=_left_edge_unmasked,
        needs=("window",),
    ),
    _mask(
        "tail-weighs-zero",
        "B22",
        "keys beyond the end score 0, not -inf",
        scores=_padded_scores,
        seen=_padded_seen,
        values=_padded_values,
        dropped=_padded_dropped,
    ),
    _mask("tail-repeats-last-key", "B38", "keys beyond the end are the last", prepare=_clamped),
    _mask(
        "tail-tile-dropped",
        "B30",
        "the last part of a tile is not visited",
        seen=_drop(lambda keys: keys // BLOCK * BLOCK),
    ),
    _mask(
        "keys-from-2048-lost",
        "",
        "keys behind a chunk of 2048 are not visited",
        seen=_drop(lambda keys: min(keys, 2048)),
    ),
    _mask(
        "full-tile-of-112-hidden",
        "B30",
        "the last tile of 112 keys, where it is full",
        seen=_drop(lambda keys: keys if keys % 112 or keys == 112 else keys - 112),
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
    _mask(
        "causal-offset-clamped",
        "B33",
        "the diagonal of more queries than keys starts at key 0",
        prepare=_call(lambda problem: {"offset": max(problem.offset, 0)} if problem.causal else {}),
    ),
    _mask("tiles-causal-always", "B20", "no tile above the diagonal", seen=_causal_everywhere),
    _mask(
        "window-lost-in-chunks",
        "B19",
        "no window where queries and keys differ in number",
        prepare=_call(lambda problem: {} if problem.keys == problem.queries else {"left": -1}),
        needs=("window",),
    ),
    _mask(
        "window-lost-in-decode",
        "B79",
        "no window for a single query",
        prepare=_call(lambda problem: {"left": -1} if problem.queries == 1 else {}),
        needs=("window",),
    ),
    _mask(
        "window-zero-is-none",
        "B16",
        "a limit of 0 is none",
        prepare=_call(_zero_is_none),
        needs=("window",),
    ),
    _mask(
        "window-right-zero-is-none",
        "B16",
        "a right limit of 0 is none",
        prepare=_call(lambda problem: {} if problem.causal or problem.right else {"right": -1}),
        needs=("window",),
    ),
    _mask(
        "window-left-zero-is-none",
        "B16",
        "a left limit of 0 is none, where the right one is not",
        prepare=_call(lambda problem: {"left": -1} if problem.left == 0 < problem.right else {}),
        needs=("window",),
    ),
    _mask(
        "window-lost-where-overruled",
        "B15",
        "no left limit where the causal mask sets the right one",
        prepare=_call(_overruled),
        needs=("window",),
    ),
    _mask(
        "causal-lost-in-open-window",
        "B15",
        "no causal mask where a window is open to the right",
        prepare=_call(_open_causal),
        needs=("window",),
    ),
    _mask(
        "window-in-8-bits",
        "B17",
        "the left limit modulo 256",
        prepare=_call(lambda problem: {"left": problem.left % 256 if problem.left > 0 else -1}),
        needs=("window",),
    ),
    _mask("hidden-values-read", "B18", "values that nobody sees are read", values=_hidden_values),
)
