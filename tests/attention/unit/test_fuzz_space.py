"""The space of cases: what is drawn is legal, admitted, the same every time, and everywhere."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pinproof_cell.fuzz.space import SIZES, Space, legal, work
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import FEATURES

NARROW = frozenset({"bf16", "causal", "gqa", "wide-head"})


@given(st.integers(0, 10_000), st.sampled_from((FEATURES, NARROW)), st.integers(0, 3))
def test_a_case_is_legal_and_needs_nothing_that_the_candidate_does_not_admit(
    number: int, supports: frozenset[str], seed: int
) -> None:
    case = Space(supports, SIZES["cpu"], seed).case(number)
    if case is not None:
        assert legal(case)
        assert case.features <= supports
        assert work(case) <= SIZES["cpu"].work


def test_a_case_depends_on_seed_and_number_alone() -> None:
    space = Space(FEATURES, SIZES["cpu"], 5)
    forwards = [space.case(number) for number in range(50)]
    again = Space(FEATURES, SIZES["cpu"], 5)
    assert [again.case(number) for number in reversed(range(50))] == forwards[::-1]
    other = Space(FEATURES, SIZES["cpu"], 6)
    assert [other.case(number) for number in range(50)] != forwards


def test_every_two_features_that_go_together_meet_within_2000_cases() -> None:
    space = Space(FEATURES, SIZES["cpu"], 0)
    drawn = [case for number in range(2000) if (case := space.case(number))]
    met = {pair for case in drawn for pair in combinations(sorted(case.features), 2)}
    more = [case for number in range(2000, 6000) if (case := space.case(number))]
    later = {pair for case in more for pair in combinations(sorted(case.features), 2)}
    assert set().union(*(case.features for case in drawn)) == FEATURES - {"lse", "deterministic"}
    assert len(later - met) < 0.02 * len(later)


def test_lengths_reach_the_edges_of_tiles_and_the_ends_of_the_range() -> None:
    space = Space(FEATURES, SIZES["cpu"], 0)
    drawn = [case for number in range(3000) if (case := space.case(number))]
    assert {0, 1, 2, 63, 64, 65, 127, 128, 129} <= {case.seqlen_k for case in drawn}
    assert {0, 1, 63, 64, 65} <= {case.seqlen_q for case in drawn}
    assert {1, 256} <= {case.head_dim for case in drawn}
    assert {-1, 0, 2**30} <= {side for case in drawn for side in case.window}


@pytest.mark.parametrize("start", range(0, 120, 40))
def test_inputs_of_every_kind_and_scale_are_finite_in_their_type(start: int) -> None:
    space = Space(FEATURES - {"far", "strided-head"}, SIZES["cpu"], 1)
    for number in range(start, start + 40):
        if case := space.case(number):
            call = inputs.generate(case, 0, "cpu")
            assert all(bool(torch.isfinite(x).all()) for x in (call.q, call.k, call.v)), case.id
