"""Shrinking: the smallest case fails the same way, and has only what the failure needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinproof_cell.fuzz.shrink import SIZES as SIZE_FEATURES
from pinproof_cell.fuzz.shrink import shrink, stripped
from pinproof_cell.fuzz.space import SIZES, Space, legal
from pinproof_cell.suite.cases import FEATURES, Case

SPACE = Space(FEATURES, SIZES["cpu"], 0)
LARGE = Case(
    200,
    300,
    160,
    heads=6,
    heads_k=2,
    causal=True,
    window=(90, 0),
    softcap=30.0,
    alibi=True,
    scale=0.3,
    dtype="fp16",
    kind="peaked",
    batch=3,
)


def smallest(case: Case, fails: Callable[[Case], bool]) -> Case:
    return shrink(case, fails, lambda: False)


FAILURES: dict[str, tuple[Callable[[Case], bool], Case]] = {
    "always": (lambda case: True, Case(1, 2, 8, heads=1, heads_k=1, batch=1)),
    "behind a tile of keys": (
        lambda case: case.seqlen_k > 64,
        Case(1, 65, 8, heads=1, heads_k=1, batch=1),
    ),
    "softcap": (
        lambda case: case.softcap > 0,
        Case(1, 2, 8, heads=1, heads_k=1, batch=1, softcap=30.0),
    ),
    "grouped heads in fp16": (
        lambda case: case.heads != case.heads_k and case.dtype == "fp16",
        Case(1, 2, 8, heads=2, heads_k=1, batch=1, dtype="fp16"),
    ),
    "wide heads": (
        lambda case: case.head_dim > 128,
        Case(1, 2, 136, heads=1, heads_k=1, batch=1),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_only_what_the_failure_needs_is_left(name: str) -> None:
    fails, wanted = FAILURES[name]
    assert smallest(LARGE, fails) == wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3000), st.sampled_from(sorted(FEATURES - {"lse"})))
def test_the_smallest_case_fails_too_is_legal_and_has_no_feature_more(
    number: int, feature: str
) -> None:
    case = SPACE.case(number)
    if case is None or feature not in case.features:
        return
    found = smallest(case, lambda smaller: feature in smaller.features)
    assert feature in found.features
    assert legal(found)
    assert found.features - SIZE_FEATURES <= case.features
    assert len(found.features) <= len(case.features)


def test_a_ragged_failure_becomes_one_short_sequence() -> None:
    case = Case(
        64, 200, 64, layout="paged", page=64, lengths=((5, 100), (64, 200), (1, 0)), splits=3
    )
    found = smallest(case, lambda smaller: smaller.layout == "paged")
    assert found.lengths == ((1, 2),)
    assert (found.page, found.splits, found.head_dim) == (16, 0, 8)


def test_nothing_is_asked_when_the_time_is_over() -> None:
    def never(case: Case) -> bool:
        raise AssertionError(case.id)

    assert shrink(LARGE, never, lambda: True) == LARGE


def test_no_case_is_asked_twice() -> None:
    asked: list[Case] = []

    def fails(case: Case) -> bool:
        asked.append(case)
        return case.seqlen_k > 100 and case.causal

    smallest(LARGE, fails)
    assert len(asked) == len(set(asked))


def test_a_stripped_case_keeps_its_shape_and_the_named_features() -> None:
    found = stripped(LARGE, frozenset({"alibi"}))
    assert (found.seqlen_q, found.seqlen_k, found.head_dim) == (200, 300, 160)
    assert found.features == {"fp16", "alibi", "wide-head"}
