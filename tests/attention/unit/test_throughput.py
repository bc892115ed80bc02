"""The throughput stage: candidates that crash, lie or hang, and what their rounds come to.

One real run with two processes serves most tests; its candidates are in a file of their own.
"""

from __future__ import annotations

import dataclasses
import random
import time

import pytest
import torch

from pinproof_cell.request import Request
from pinproof_cell.throughput import arms, pairs, workload
from pinproof_cell.throughput import stage as throughput
from pinproof_cell.throughput.rounds import BaselineError, Rounds
from pinproof_cell.throughput.task import Job, Task
from pinproof_cell.world import child, nvml

POINT = "prefill-d64-causal-128"
PLAN = dataclasses.replace(throughput.CPU, least=10, most=10, hang=12.0)

ROGUES = """
import functools, os, signal, time
import torch

def right(q, k, v, causal=False, **rest):
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal
    )
    return out.transpose(1, 2), None

def crashing(q, k, v, causal=False, **rest):
    os.kill(os.getpid(), signal.SIGFPE)

def raising(q, k, v, causal=False, **rest):
    raise RuntimeError("no kernel image is available\\nfor execution on the device")

def hanging(q, k, v, causal=False, **rest):
    time.sleep(600)

def zero(q, k, v, causal=False, **rest):
    return torch.zeros_like(q), None

@functools.cache
def remembering(q, k, v, causal=False, **rest):
    return right(q, k, v, causal)
"""
NAMES = ("crashing", "right", "raising", "zero", "remembering", "hanging", "triton-fast")


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """The findings of two processes on the reference itself and every rogue."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "rogues.py").write_text(ROGUES, encoding="utf-8")
    found = throughput.Findings()
    request = Request(cell="cpu-3f9a1c", target="cpu", axes={})
    jobs = tuple(job(folder, name) for name in NAMES)
    for number in (1, 2):
        waiting = found.measurable(jobs)
        deadline = time.monotonic() + 60
        throughput.measure(request, PLAN, found, waiting, number, deadline, folder)
    return folder, found


def job(folder, name: str) -> Job:
    known = name.startswith("triton")
    return Job(candidate=name if known else f"{folder / 'rogues.py'}:{name}", point=POINT)


def entry(findings, name: str) -> dict:
    folder, found = findings
    return throughput.conclude(job(folder, name), found, PLAN, "cpu", 1.0)


def test_a_candidate_that_kills_its_process_is_a_crash_with_the_signal(findings):
    found = entry(findings, "crashing")
    assert (found["status"], found["signal"]) == ("CRASH", "SIGFPE")
    assert found["reason"] == "killed by SIGFPE while it was timed"


def test_a_candidate_that_raises_is_an_error_in_one_line(findings):
    found = entry(findings, "raising")
    assert found["status"] == "ERROR"
    assert found["reason"] == "RuntimeError: no kernel image is available"


def test_a_candidate_that_hangs_is_given_up_and_named(findings):
    found = entry(findings, "hanging")
    assert (found["status"], found["reason"]) == ("HANG", "no end within 12 s while it was timed")


@pytest.mark.parametrize("name", ["zero", "remembering"])
def test_a_candidate_that_is_fast_without_doing_the_work_is_wrong(findings, name):
    found = entry(findings, name)
    assert found["status"] == "WRONG"
    assert "output of a timed launch" in found["reason"]


def test_the_points_after_a_crash_and_a_hang_are_measured_in_both_processes(findings):
    for name in ("right", "triton-fast"):
        found = entry(findings, name)
        assert (found["processes"], found["rounds"]) == (2, 20)
        assert found["rounds_by_process"] == [10, 10]
        assert len(found["samples"]) == 20


def test_the_reference_against_itself_is_about_as_fast_as_itself(findings):
    assert entry(findings, "triton-fast")["ratio"] == pytest.approx(1.0, abs=0.3)


def test_a_compiled_kernel_is_faster_than_an_interpreted_one(findings):
    found = entry(findings, "right")
    assert found["ratio"] > 2
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["clock"] == "monotonic"


def ended(ratio: float, count: int, noise: float = 0.0, **more) -> dict:
    rng = random.Random(1)
    samples = [[1.0, ratio * (1 + rng.uniform(-noise, noise))] for _ in range(count)]
    shared = {"status": "OK", "clock": "cuda-graph", "launches": [1, 1], "warm": True}
    return shared | {"discarded": 0, "roofline": 0.5, "conditions": None, "samples": samples} | more


def concluded(*results: dict) -> dict:
    found = throughput.Findings(ended={Job(candidate="c", point=POINT): list(results)})
    gpu = throughput.GPU
    return throughput.conclude(Job(candidate="c", point=POINT), found, gpu, "cpu", 0.5)


def test_three_processes_that_agree_give_the_ratio_of_the_reference_to_the_candidate():
    found = concluded(*[ended(1.25, 30)] * 3)
    assert (found["status"], found["ratio"], found["rounds"]) == ("OK", 1.25, 90)
    assert found["reference_over_anchor"] == 2.5


def test_processes_that_disagree_by_more_than_the_precision_are_ambiguous():
    found = concluded(ended(1.20, 30), ended(1.25, 30), ended(1.30, 30))
    assert found["status"] == "AMBIGUOUS"
    assert found["ratio"] == 1.25
    assert "not to 1%" in found["reason"]


def test_too_few_rounds_are_ambiguous_however_well_they_agree():
    found = concluded(ended(1.25, 19))
    assert found["status"] == "AMBIGUOUS"
    assert found["reason"] == "only 19 rounds fitted into the budget"


def test_a_spent_budget_is_ambiguous_and_has_no_ratio():
    found = concluded({"status": "SKIPPED", "reason": "no time was left in the budget"})
    assert (found["status"], found["ratio"]) == ("AMBIGUOUS", None)


def test_a_run_in_which_no_point_had_time_is_made_again_and_one_late_point_is_not():
    late, timed = concluded(), concluded(ended(2.0, 30), ended(2.0, 30), ended(2.0, 30))
    assert ["no round fitted" in line for line in throughput.incomplete([late, late])] == [True] * 2
    assert list(throughput.incomplete([late, timed])) == []


def test_one_bad_process_outweighs_two_good_ones():
    found = concluded(ended(1.25, 30), ended(1.25, 30), {"status": "WRONG", "reason": "off by 2"})
    assert (found["status"], found["ratio"], found["reason"]) == ("WRONG", None, "off by 2")


def test_a_candidate_that_no_graph_can_capture_is_asked_again_and_stays_measurable():
    one, two = (Job(candidate=name, point=POINT) for name in ("one", "two"))
    found = throughput.Findings()
    lines = [
        {"kind": "begin", "job": dataclasses.asdict(one)},
        {"kind": "end", "job": dataclasses.asdict(one), "status": "UNCAPTURED", "reason": "sync"},
    ]
    well = child.Ended(returncode=0, seconds=1.0)
    assert throughput.digest(lines, found, well, 9.0) == set()
    assert found.eager == {"one": "sync"}
    assert found.measurable((one, two)) == (one, two)


def test_a_process_that_dies_before_its_first_job_fails_all_of_them_once(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    document = throughput.run(Request(cell="c", target="cpu", axes={}).document())
    assert {point["status"] for point in document["points"]} == {"ERROR"}
    assert {point["reason"] for point in document["points"]} == {"ImportError: libcudart.so.13"}
    assert len(document["points"]) == len(workload.CPU_POINTS)
    assert document["device"]["kind"] == "cpu"


def test_what_a_candidate_does_not_support_is_never_started(monkeypatch):
    found = throughput.Findings()
    request = Request(cell="c", target="sm_90", axes={})
    jobs = throughput.choose(request, found)
    open_jobs = found.measurable(jobs)
    window = "prefill-d128-window1k-16k"
    assert Job(candidate="torch-sdpa-flash", point=window) in set(jobs) - set(open_jobs)
    assert Job(candidate="torch-sdpa-flash", point="decode-d128-b32-8k") in open_jobs


def test_a_task_survives_the_way_through_its_file(tmp_path):
    task = Task(
        target="cpu", axes={"torch": "2.13.0"}, seed=1, number=2, deadline=3.5, hang=9.0,
        journal="j", jobs=(Job(candidate="c", point=POINT),), eager=("c",), rule=PLAN.rule(),
    )  # fmt: skip
    task.write(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == task
    assert pairs.StopRule(**task.rule).least == PLAN.least


class Metronome:
    """An arm whose times are given, with an output that each run writes."""

    clock, launches = "given", 1

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._out = torch.ones(4, 8)

    def time(self) -> float:
        self._out = torch.ones(4, 8)
        return self.seconds

    def poison(self) -> None:
        self._out.fill_(torch.nan)

    def output(self) -> torch.Tensor:
        return self._out


def rounds_of(candidate: float, reference: float) -> Rounds:
    return Rounds(
        candidate=Metronome(candidate),
        reference=Metronome(reference),
        gauges=None,
        rng=random.Random(0),
    )


def test_rounds_keep_candidate_and_reference_apart_whatever_their_order():
    rounds = rounds_of(1.0, 2.0)
    assert rounds.warm_up(5.0, 5, 0.01)
    assert rounds.measure(pairs.StopRule()) is None
    assert set(rounds.samples) == {(1.0, 2.0)}
    assert len(rounds.samples) == pairs.StopRule().least


def test_a_reference_without_a_finite_output_is_no_fault_of_the_candidate():
    rounds = rounds_of(1.0, 2.0)
    rounds.reference.time = lambda: 2.0  # it leaves its output as it was poisoned
    with pytest.raises(BaselineError, match="baseline"):
        rounds.measure(pairs.StopRule())


def test_rounds_whose_clock_was_held_down_are_dropped():
    def gauges(clock: int, throttle: int) -> nvml.Gauges:
        return nvml.Gauges(
            sm_clock=clock, memory_clock=2619, power=650.0, temperature=60, throttle=throttle
        )

    rounds = rounds_of(1.0, 2.0)
    rounds.samples = [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (4.0, 2.0)]
    rounds.readings = [gauges(1980, 0), gauges(1980, 0x8), gauges(1400, 0x4), gauges(1980, 0x4)]
    assert rounds.kept() == [(1.0, 2.0), (4.0, 2.0)]
    conditions = rounds.conditions()
    assert conditions is not None
    assert conditions["throttle"] == ["power-cap", "hw-slowdown"]
    assert conditions["sm_clock"] == 1980


def test_an_arm_is_launched_as_often_as_a_clock_needs():
    assert arms.launches_for(1.0) == 1
    assert arms.launches_for(0.5e-3) == 4
    assert arms.launches_for(0.0) == arms.MOST_LAUNCHES


def test_disagreement_is_relative_to_the_row_and_inf_for_nan():
    expected = torch.tensor([[100.0, 0.0], [0.01, 0.0]])
    assert arms.disagreement(expected, expected) == 0
    off = expected + torch.tensor([[0.0, 0.0], [0.01, 0.0]])
    assert arms.disagreement(off, expected) > 0.1
    assert arms.disagreement(torch.full((2, 2), torch.nan), expected) == float("inf")
