"""The statistics of the throughput probe, against simulated machines with a known truth."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof_cell.throughput import pairs

DRAWS = 300
#: One round's log ratio has a standard deviation of 0.6-0.9% on an H200.
NOISE = 0.008
DRIFT = 0.03


class Machine:
    """A simulated GPU that slows by 3% as it warms up; its times are a true time with noise."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.launches = 0
        self.tau = rng.uniform(20, 80)

    def time(self, true: float) -> float:
        self.launches += 1
        warm = 1 + DRIFT * (1 - math.exp(-self.launches / self.tau))
        return true * warm * math.exp(self.rng.gauss(0, NOISE / math.sqrt(2)))


def paired(rng: random.Random, speedup: float, *, processes: int = 3, rounds: int = 30):
    """Log ratios of interleaved pairs in random order, on a machine that starts cold each time."""
    sample = []
    for _ in range(processes):
        machine = Machine(rng)
        ratios = []
        for _ in range(rounds):
            if rng.random() < 0.5:
                candidate, reference = machine.time(1.0), machine.time(speedup)
            else:
                reference, candidate = machine.time(speedup), machine.time(1.0)
            ratios.append(pairs.log_ratio(candidate, reference))
        sample.append(ratios)
    return sample


def one_after_the_other(rng: random.Random) -> list[list[float]]:
    """Log ratios of the naive way: all of A, then all of B, on the machine as it warms up."""
    machine = Machine(rng)
    first = [machine.time(1.0) for _ in range(30)]
    second = [machine.time(1.0) for _ in range(30)]
    return [[pairs.log_ratio(a, b) for a, b in zip(first, second, strict=True)]]


def share_that_differ(samples) -> float:
    found = [pairs.interval(sample, draws=DRAWS).differs for sample in samples]
    return sum(found) / len(found)


def test_interleaved_pairs_call_an_unchanged_kernel_different_in_at_most_4_percent_of_runs():
    rng = random.Random(1)
    assert share_that_differ(paired(rng, 1.0) for _ in range(150)) <= 0.04


def test_timing_one_after_the_other_calls_an_unchanged_kernel_different_in_most_runs():
    rng = random.Random(2)
    assert share_that_differ(one_after_the_other(rng) for _ in range(60)) >= 0.7


@pytest.mark.parametrize("speedup", [1.01, 1 / 1.01])
def test_a_change_of_1_percent_is_found_in_most_runs(speedup):
    rng = random.Random(3)
    assert share_that_differ(paired(rng, speedup) for _ in range(60)) >= 0.9


def test_the_interval_covers_the_true_ratio_in_at_least_95_percent_of_runs():
    rng = random.Random(4)
    runs = [pairs.interval(paired(rng, 1.2), draws=DRAWS) for _ in range(150)]
    assert sum(run.low <= 1.2 <= run.high for run in runs) / len(runs) >= 0.95


def test_the_interval_of_a_single_process_covers_the_truth_about_as_often_as_it_claims():
    rng = random.Random(5)
    runs = [pairs.interval(paired(rng, 1.2, processes=1), draws=DRAWS) for _ in range(300)]
    assert 0.90 <= sum(run.low <= 1.2 <= run.high for run in runs) / len(runs) <= 0.99


def test_processes_that_disagree_widen_the_interval_beyond_what_their_rounds_tell():
    rng = random.Random(6)
    agree = paired(rng, 1.0)
    disagree = [
        [ratio + shift for ratio in rounds]
        for rounds, shift in zip(agree, (-0.03, 0, 0.03), strict=True)
    ]
    assert pairs.interval(disagree).half_width > 5 * pairs.interval(agree).half_width


def test_the_same_samples_give_the_same_interval_again():
    sample = paired(random.Random(7), 1.1)
    assert pairs.interval(sample) == pairs.interval(sample)


def test_a_sample_without_rounds_is_refused():
    with pytest.raises(ValueError, match="no rounds"):
        pairs.interval([[], []])


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_a_time_that_no_clock_gives_is_refused(times):
    with pytest.raises(ValueError, match="positive"):
        pairs.log_ratio(*times)


def test_a_candidate_that_takes_half_the_time_has_a_ratio_of_two():
    assert pairs.interval([[pairs.log_ratio(1.0, 2.0)]]).ratio == pytest.approx(2.0)


ratios = st.floats(min_value=-3, max_value=3)
samples = st.lists(st.lists(ratios, min_size=1, max_size=8), min_size=1, max_size=4)


@given(samples)
def test_the_estimate_lies_in_its_interval_and_the_interval_in_the_samples(sample):
    found = pairs.interval(sample, draws=40)
    every = [math.exp(ratio) for rounds in sample for ratio in rounds]
    slack = 1 + 1e-9
    assert found.low <= found.ratio <= found.high
    assert min(every) <= found.low * slack
    assert found.high <= max(every) * slack


@given(samples, st.floats(min_value=-2, max_value=2))
def test_a_reference_slower_by_a_factor_scales_the_ratio_by_that_factor(sample, shift):
    plain = pairs.interval(sample, draws=10)
    moved = pairs.interval([[r + shift for r in rounds] for rounds in sample], draws=10)
    assert moved.ratio == pytest.approx(plain.ratio * math.exp(shift))
    assert moved.low == pytest.approx(plain.low * math.exp(shift))


@given(samples)
def test_swapping_candidate_and_reference_inverts_the_ratio(sample):
    swapped = [[-ratio for ratio in rounds] for rounds in sample]
    assert pairs.interval(swapped, draws=5).ratio == pytest.approx(
        1 / pairs.interval(sample, draws=5).ratio
    )


@given(st.lists(ratios, min_size=1, max_size=30), st.floats(min_value=0, max_value=1))
def test_a_quantile_lies_between_the_extremes_and_the_half_is_the_median(values, share):
    assert min(values) <= pairs.quantile(values, share) <= max(values)
    assert pairs.quantile(values, 0.5) == pytest.approx(pairs.median(values), abs=1e-12)


@given(st.lists(ratios, min_size=0, max_size=40), st.floats(min_value=0, max_value=1))
def test_a_process_never_stops_before_a_round_nor_goes_beyond_its_cap(values, elapsed):
    rule = pairs.StopRule(seconds=0.5)
    if not values:
        assert not rule.enough(values, elapsed)
    if len(values) >= rule.most or (values and elapsed >= rule.seconds):
        assert rule.enough(values, elapsed)
    if 0 < len(values) < rule.least and elapsed < rule.seconds:
        assert not rule.enough(values, elapsed)


def test_a_quiet_machine_stops_at_the_least_rounds_and_a_noisy_one_goes_on():
    rng = random.Random(8)
    quiet = [rng.gauss(0, 0.005) for _ in range(20)]
    noisy = [rng.gauss(0, 0.2) for _ in range(20)]
    rule = pairs.StopRule()
    assert not rule.enough(quiet[:19], 0.0)
    assert rule.enough(quiet, 0.0)
    assert not rule.enough(noisy, 0.0)


def test_warm_up_is_over_once_five_block_medians_lie_within_a_percent():
    cold = [1.30, 1.20, 1.10, 1.05, 1.02]
    assert not pairs.settled(cold)
    assert not pairs.settled([1.0] * 4)
    assert pairs.settled([*cold, 1.001, 1.0, 1.002, 1.004, 1.003])


def test_the_statistics_import_nothing_but_the_standard_library():
    source = str(Path(pairs.__file__).parents[2])
    code = "import sys, pinproof_cell.throughput.pairs as _; "
    code += "print({'torch', 'numpy', 'pinproof'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
