"""Mutants that keep what the first call told them: compile caches, captured graphs, old buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.layout import Layout
from pinproof_cell.mutants.emulation import Backward, Memory, Problem, changed
from pinproof_cell.mutants.emulation.memory import keys
from pinproof_cell.mutants.mutant import Attention, Family
from pinproof_cell.mutants.strides import reread


def _first(
    *names: str, key: Callable[[Problem], Any] = lambda problem: None
) -> Callable[[], Attention]:
    """Return a maker of kernels that keep some fields of the first problem with the same key."""

    def make() -> Attention:
        known: dict[Any, dict[str, Any]] = {}

        def prepare(problem: Problem) -> Problem:
            found = {name: getattr(problem, name) for name in names}
            return replace(problem, **known.setdefault(key(problem), found))

        return changed(prepare=prepare)

    return make


def _shape(problem: Problem) -> tuple[int, ...]:
    return (*problem.q.shape, problem.keys)


def _first_of_gradients(*names: str) -> Callable[[], Attention]:
    """Return a maker of kernels whose backward keeps some fields of its first problem."""

    def make() -> Attention:
        known: dict[str, Any] = {}

        def prepare(problem: Problem) -> Problem:
            for name in names:
                known.setdefault(name, getattr(problem, name))
            return replace(problem, **known)

        return changed(backward_steps=Backward(prepare=prepare))

    return make


def _first_longest() -> Attention:
    """Return a kernel that never visits more keys than the first call had at most."""
    most: list[int] = []

    def prepare(problem: Problem) -> Problem:
        most.append(problem.longest[1])
        k, v = (x[:, :, : most[0]] for x in (problem.k, problem.v))
        return replace(problem, k=k, v=v)

    return changed(prepare=prepare)


def _first_strides() -> Attention:
    """Return a kernel that reads tensors of one shape by the strides that its first one had."""
    known: dict[tuple[Any, ...], tuple[int, ...]] = {}

    def ask(call: Call) -> Call:
        read = {}
        for name in ("q", "k", "v"):
            x = getattr(call, name)
            strides = known.setdefault((name, *x.shape), x.stride())
            read[name] = x if strides == x.stride() else reread(x, strides)
        return replace(call, **read)

    return changed(ask=ask)


def _first_layout(*names: str) -> Callable[[], Attention]:
    """Return a maker of kernels that captured some tensors of the first layout of a shape."""

    def make() -> Attention:
        known: dict[Any, dict[str, Tensor]] = {}

        def ask(call: Call) -> Call:
            layout = call.layout
            if layout is None:
                return call
            found = {name: getattr(layout, name) for name in names}
            sizes = tuple(None if x is None else tuple(x.shape) for x in found.values())
            kept = known.setdefault((tuple(call.k.shape), *sizes), found)
            return replace(call, layout=replace(layout, **kept))

        return changed(ask=ask, memory=Memory(keys=_capped))

    return make


def _capped(layout: Layout, index: int, page: int) -> int:
    """Return the number of keys, at most what the tensors of the layout can say."""
    length = keys(layout, index, page)
    if layout.starts_k is not None:
        return min(length, int(layout.starts_k[-1] - layout.starts_k[index]))
    if layout.block_table is not None:
        return min(length, layout.block_table.shape[1] * page)
    return length


_cached = Family(name="caching", unsteady=True)

MUTANTS = (
    _cached("softcap-cached", "B56", "the first softcap is compiled in", make=_first("softcap")),
    _cached(
        "scale-cached",
        "B75",
        "the first scale of a head size is compiled in",
        make=_first("scale", key=lambda problem: problem.q.shape[3]),
    ),
    _cached("window-cached", "B75", "the first window", make=_first("left", "right", "window")),
    _cached(
        "causal-cached",
        "B75",
        "the first mask of a shape",
        make=_first("left", "right", "causal", key=_shape),
    ),
    _cached(
        "slopes-cached", "B54", "the first slopes of a shape", make=_first("slopes", key=_shape)
    ),
    _cached("sinks-cached", "B73", "the first sinks of a shape", make=_first("sinks", key=_shape)),
    _cached(
        "dropout-cached", "B57", "the first dropout of a shape", make=_first("dropout", key=_shape)
    ),
    _cached("longest-cached", "B73", "max_k as the first call had it", make=_first_longest),
    _cached("strides-cached", "B61", "the first strides of a shape", make=_first_strides),
    _cached(
        "lengths-cached",
        "B08",
        "lengths as captured",
        make=_first_layout("lengths_k"),
    ),
    _cached(
        "table-cached",
        "B08",
        "the block table as captured",
        make=_first_layout("block_table"),
        needs=("paged",),
    ),
    _cached(
        "starts-cached",
        "B08",
        "starts as captured",
        make=_first_layout("starts_k"),
        needs=("varlen",),
    ),
    _cached(
        "grad-softcap-cached",
        "B56",
        "the backward's first softcap",
        make=_first_of_gradients("softcap"),
        needs=("backward",),
    ),
    _cached(
        "grad-window-cached",
        "B75",
        "the backward's first window",
        make=_first_of_gradients("left", "right"),
        needs=("backward",),
    ),
)
