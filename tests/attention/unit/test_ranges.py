"""Ranges of numbers and of versions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import InvalidVersion, Version

from pinproof_cell.judge.ranges import Range, version

counts = st.integers(0, 30)
releases = st.lists(counts, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
phases = st.one_of(
    st.just(""), st.tuples(st.sampled_from(["a", "b", "rc"]), counts).map(lambda x: f"{x[0]}{x[1]}")
)
posts = st.one_of(st.just(""), counts.map(lambda number: f".post{number}"))
devs = st.one_of(st.just(""), counts.map(lambda number: f".dev{number}"))
local = st.sampled_from(["", "+cu130", "+cpu"])
versions = st.tuples(releases, phases, posts, devs, local).map("".join)


@given(versions, versions)
def test_versions_are_ordered_as_pip_orders_them_without_their_local_part(a: str, b: str) -> None:
    ours, theirs = (version(a), version(b)), (public(a), public(b))
    assert (ours[0] < ours[1], ours[0] == ours[1]) == (
        theirs[0] < theirs[1],
        theirs[0] == theirs[1],
    )


def public(text: str) -> Version:
    return Version(Version(text).public)


@pytest.mark.parametrize("text", ["1.0-1", "v2.13.0", "2.14.0.dev20260729+cu130", "4.0.0b27"])
def test_versions_as_packages_really_write_them_are_understood(text: str) -> None:
    nearby = ["0.9", "1.0", "1.1", "2.13.0", "2.14.0a0", "2.14", "4.0.0b5", "4.0.0"]
    for other in nearby:
        assert (version(text) < version(other)) == (public(text) < public(other)), other


@given(st.text(alphabet="0123456789.abrcpostdev+-", max_size=12))
def test_what_is_no_version_is_refused_and_never_misread(text: str) -> None:
    try:
        wanted = public(text)
    except InvalidVersion:
        wanted = None
    try:
        found = version(text)
    except ValueError:
        return
    assert wanted is not None
    assert found == version(str(wanted))


@given(
    st.integers(-300, 300), st.integers(-300, 300), st.sampled_from(["==", "!=", "<", "<=", ">"])
)
def test_a_clause_compares_as_python_does(value: int, bound: int, compare: str) -> None:
    assert Range.parse(f"{compare} {bound}").holds(value) == eval(f"{value} {compare} {bound}")


@given(st.lists(st.tuples(st.sampled_from(["<", ">=", "!="]), st.integers(0, 9)), max_size=4))
def test_a_range_holds_what_each_of_its_clauses_holds(clauses: list[tuple[str, int]]) -> None:
    parts = [f"{compare}{bound}" for compare, bound in clauses]
    for value in range(10):
        alone = all(Range.parse(part).holds(value) for part in parts)
        assert Range.parse(", ".join(parts)).holds(value) == alone


def test_a_remainder_can_be_asked_for() -> None:
    found = [value for value in range(1, 400) if Range.parse("% 128 == 64, < 300").holds(value)]
    assert found == [64, 192]


@pytest.mark.parametrize(
    ("text", "key"),
    [("2.13", float), ("~= 2.13", version), ("> x", float), ("> 2.x", version), ("% 0 == 0", float),
     ("% 2 == 0", version), ("> 1 < 3", float)],
)  # fmt: skip
def test_anything_else_is_refused_when_it_is_read(text: str, key: object) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Range.parse(text, key)  # type: ignore[arg-type]


def test_an_empty_range_holds_everything() -> None:
    for value in itertools.product("01", repeat=2):
        assert Range.parse("").holds("".join(value))
