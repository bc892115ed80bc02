"""Make a failing case smaller, field by field, for as long as it fails the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

from pinproof_cell.fuzz.space import legal
from pinproof_cell.suite.cases import Case

#: What a case is without, and may lose one at a time; the defaults of `Case` say how that looks.
EXTRAS = (
    ("backward",),
    ("dropout",),
    ("sinks",),
    ("alibi",),
    ("softcap",),
    ("splits",),
    ("causal", "window"),
    ("window",),
    ("causal",),
    ("scale",),
    ("memory",),
    ("head_dim_v",),
    ("kind",),
    ("dtype",),
)
#: Features that every call has one of: none of them is more than another.
TYPES = frozenset({"fp16", "bf16", "fp32"})
SIZES = TYPES | {"page-small", "page-16", "page-64", "page-256"}
_DEFAULT: dict[str, Any] = {field.name: field.default for field in fields(Case)}
#: Head dimensions that are tried first.
_ROUND = (8, 16, 32, 64, 128)


def shrink(case: Case, fails: Callable[[Case], bool], out_of_time: Callable[[], bool]) -> Case:
    """Return the smallest case found for which `fails` still holds.

    Greedy: each step that still fails is taken, until none is left or the time is over. No step
    adds a feature, so what the smallest case has is what the failure needs.
    """
    asked = {case: True}

    def holds(smaller: Case) -> bool:
        if smaller not in asked:
            asked[smaller] = not out_of_time() and fails(smaller)
        return asked[smaller]

    before = None
    while before != case and not out_of_time():
        before = case
        for step in STEPS:
            # A step that succeeded is tried again: half of a half.
            while smaller := next((one for one in allowed(case, step) if holds(one)), None):
                case = smaller
    return case


def allowed(case: Case, step: Callable[[Case], Iterator[Case]]) -> Iterator[Case]:
    """Yield what `step` offers that is a case, another one, and has no feature more."""
    for smaller in step(case):
        new = smaller.features - case.features - SIZES
        if smaller != case and legal(smaller) and not new:
            yield smaller


def stripped(case: Case, features: frozenset[str]) -> Case:
    """Return `case` without whatever it can lose beside `features`."""
    for step in (without_extras, fewer_heads):
        for smaller in step(case):
            lost = case.features - smaller.features - SIZES
            if lost and not lost & features and legal(smaller):
                return stripped(smaller, features)
    return case


def one_feature(case: Case) -> Iterator[Case]:
    """Offer the case with nothing but what it cannot lose, then with one feature beside."""
    for kept in ((), *((feature,) for feature in sorted(case.features - SIZES))):
        yield stripped(case, frozenset(kept))


def without_extras(case: Case) -> Iterator[Case]:
    """Offer the case without one of its extras, without empty sequences, with a second key."""
    for names in EXTRAS:
        yield replace(case, **{name: _DEFAULT[name] for name in names})
    if case.layout != "dense":
        whole = tuple(pair for pair in case.lengths if 0 not in pair)
        yield ragged(case, whole or case.lengths)
        more = ((queries, 2 if keys == 1 else keys) for queries, keys in case.lengths)
        yield ragged(case, tuple(more))
    elif case.seqlen_k == 1:
        yield replace(case, seqlen_q=2 if case.seqlen_q == 1 else case.seqlen_q, seqlen_k=2)
        yield replace(case, seqlen_k=2)


def fewer_sequences(case: Case) -> Iterator[Case]:
    """Offer a dense call of one sequence, fewer sequences, a simpler layout, a smaller batch."""
    if case.layout == "dense":
        yield replace(case, batch=1)
        return
    dense: dict[str, Any] = {"layout": "dense", "page": 0, "lengths": (), "batch": 1}
    for queries, keys in case.lengths:
        yield replace(case, **dense, seqlen_q=queries, seqlen_k=keys)
    for index in range(len(case.lengths)):
        rest = case.lengths[:index] + case.lengths[index + 1 :]
        if rest:
            yield ragged(case, rest)
    yield replace(case, layout="varlen", page=0)


def ragged(case: Case, lengths: tuple[tuple[int, int], ...]) -> Case:
    """Return `case` with other sequences."""
    queries, keys = (max(pair[side] for pair in lengths) for side in (0, 1))
    return replace(case, lengths=lengths, seqlen_q=queries, seqlen_k=keys)


def fewer_heads(case: Case) -> Iterator[Case]:
    """Offer one head, as many heads as key heads, one key head, a smaller group."""
    group = case.heads // case.heads_k
    yield replace(case, heads=1, heads_k=1)
    yield replace(case, heads=case.heads_k)
    yield replace(case, heads=group, heads_k=1)
    yield replace(case, heads=2 * case.heads_k if group > 2 else case.heads)


def shorter(case: Case) -> Iterator[Case]:
    """Offer shorter sequences; a packed case has as many keys as queries."""
    if case.layout != "dense":
        for index, (queries, keys) in enumerate(case.lengths):
            for pair in _shorter(queries, keys):
                yield ragged(case, (*case.lengths[:index], pair, *case.lengths[index + 1 :]))
        return
    for queries, keys in _shorter(case.seqlen_q, case.seqlen_k):
        yield replace(case, seqlen_q=queries, seqlen_k=keys)


def _shorter(queries: int, keys: int) -> Iterator[tuple[int, int]]:
    if queries == keys:
        yield from ((size, size) for size in _smaller(keys))
    yield from ((queries, size) for size in _smaller(keys))
    yield from ((size, keys) for size in _smaller(queries))


def _smaller(size: int) -> Iterator[int]:
    """Yield sizes below `size`, the boldest first; 0 is another case, and no smaller one."""
    yield from (less for less in dict.fromkeys((1, 2, size // 2, size - 1)) if 0 < less < size)


def narrower(case: Case) -> Iterator[Case]:
    """Offer smaller head dimensions."""
    for name in ("head_dim", "head_dim_v"):
        dim: int = getattr(case, name)
        for less in dict.fromkeys((*_ROUND, *_smaller(dim), dim - 8)):
            if 0 < less < dim:
                smaller: dict[str, Any] = {name: less}
                yield replace(case, **smaller)


def nearer(case: Case) -> Iterator[Case]:
    """Offer simpler numbers: limits of the window, splits, pages, the probability of dropout."""
    left, right = case.window
    for less in (-1, 0, *_smaller(left)):
        yield replace(case, window=(less, right)) if less < left else case
    for less in (-1, 0, *_smaller(right)):
        yield replace(case, window=(left, less)) if less < right else case
    yield replace(case, page=16 if case.page else 0)
    yield replace(case, splits=min(case.splits, 2))
    yield replace(case, splits=min(case.splits, 1))
    yield replace(case, dropout=0.5 if case.dropout else 0.0)


STEPS: tuple[Callable[[Case], Iterator[Case]], ...] = (
    one_feature,
    without_extras,
    fewer_sequences,
    fewer_heads,
    shorter,
    narrower,
    nearer,
)
