"""Mutants that lose an argument where another one meets it: a path that was not handed all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pinproof_cell.call import Call
from pinproof_cell.mutants.emulation import Backward
from pinproof_cell.mutants.mutant import Family

#: What each argument is where it is not given.
PLAIN: dict[str, Any] = {
    "scale": {"softmax_scale": None},
    "softcap": {"softcap": 0.0},
    "window": {"window_size": (-1, -1)},
    "alibi": {"alibi_slopes": None},
}


def _decode(call: Call) -> bool:
    return (call.q.shape[1] if call.layout is None else call.layout.max_q) == 1


def _varlen(call: Call) -> bool:
    return call.layout is not None and call.layout.starts_k is not None


def _paged(call: Call) -> bool:
    return call.layout is not None and call.layout.block_table is not None


def _padded(call: Call) -> bool:
    return call.layout is not None and call.layout.left_padding is not None


def _split(call: Call) -> bool:
    return call.splits > 1


def _sunk(call: Call) -> bool:
    return call.sinks is not None


def _dropped(call: Call) -> bool:
    return call.dropout > 0


def _lost(where: Callable[[Call], bool], argument: str) -> Callable[[Call], Call]:
    """Return a step that drops `argument` where `where` holds."""
    return lambda call: replace(call, **PLAIN[argument]) if where(call) else call


#: Where which arguments are lost, and what a check needs to tell.
_FORWARD = (
    ("decode", _decode, ("scale", "softcap", "alibi"), ()),
    ("varlen", _varlen, ("scale",), ("varlen",)),
    ("pages", _paged, ("scale", "softcap", "alibi"), ("paged",)),
    ("padding", _padded, ("scale", "softcap", "alibi"), ("left-padding",)),
    ("splits", _split, ("scale", "softcap", "window", "alibi"), ("splits",)),
    ("sinks", _sunk, ("scale",), ("sinks",)),
    ("dropout", _dropped, ("scale", "window"), ("dropout",)),
)
_BACKWARD = (
    ("varlen", _varlen, ("scale", "softcap", "window"), ("varlen",)),
    ("dropout", _dropped, ("scale", "window"), ("dropout",)),
)

_together = Family(name="together")
_gradient = Family(name="together", needs=("backward",))

MUTANTS = (
    *(
        _together(
            f"{argument}-lost-in-{place}",
            "B80",
            f"no {argument} in the path of {place}",
            ask=_lost(where, argument),
            needs=needs,
        )
        for place, where, arguments, needs in _FORWARD
        for argument in arguments
    ),
    *(
        _gradient(
            f"grad-{argument}-lost-in-{place}",
            "B14",
            f"no {argument} in the backward of {place}",
            backward_steps=Backward(ask=_lost(where, argument)),
            needs=needs,
        )
        for place, where, arguments, needs in _BACKWARD
        for argument in arguments
    ),
)
