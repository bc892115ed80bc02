"""The work of a point: visible pairs, FLOP, bytes, and what a machine can do with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof_cell.suite.cases import FEATURES
from pinproof_cell.throughput import workload
from pinproof_cell.throughput.workload import Point, Roof

SMALL = Point(name="small", batch=2, seqlen_q=4, seqlen_k=4, heads=4, heads_k=2, head_dim=64)
limits = st.integers(min_value=-1, max_value=12)
lengths = st.integers(min_value=1, max_value=10)


@given(lengths, lengths, st.booleans(), st.tuples(limits, limits))
def test_pairs_counts_exactly_the_keys_that_the_masks_leave(seqlen_q, seqlen_k, causal, window):
    point = replace(SMALL, seqlen_q=seqlen_q, seqlen_k=seqlen_k, causal=causal, window=window)
    left, right = window
    visible = 0
    for row in range(seqlen_q):
        own = row + seqlen_k - seqlen_q
        for key in range(seqlen_k):
            hidden = (causal and key > own) or (0 <= left < own - key)
            visible += not (hidden or (0 <= right < key - own))
    assert point.pairs() == visible


def test_the_work_of_a_llama_prefill_is_the_published_formula():
    point = next(p for p in workload.GPU_POINTS if p.name == "prefill-d128-causal-4k")
    assert point.flop() == 4 * 128 * 32 * 2 * (4096 * 4097 // 2)
    assert point.bytes() == 2 * 2 * 2 * 4096 * (32 + 8) * 128


@pytest.mark.parametrize(
    "point", [*workload.GPU_POINTS, *workload.CPU_POINTS], ids=lambda p: p.name
)
def test_every_point_asks_for_features_that_candidates_know(point):
    assert point.features <= FEATURES


def test_names_of_points_are_unique():
    for points in (workload.points("cpu"), workload.points("sm_90")):
        assert len({point.name for point in points}) == len(points)


def test_a_kernel_at_the_speed_of_the_slower_of_compute_and_memory_has_a_share_of_one():
    roof = Roof(flops=1e12, bandwidth=1e6)
    assert roof.share(SMALL, SMALL.bytes() / 1e6) == pytest.approx(1)
    roof = Roof(flops=1e6, bandwidth=1e12)
    assert roof.share(SMALL, SMALL.flop() / 1e6) == pytest.approx(1)


def test_an_unknown_machine_has_no_roof():
    assert Roof(flops=None, bandwidth=1e12).share(SMALL, 1.0) is None
