"""Tests of the scheduler, with steps that really run in its threads."""

import signal
import threading
import time
from collections.abc import Sequence

import pytest

from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.plan.plan import Step
from pinproof.plan.stage import Stage
from pinproof.run import scheduler
from pinproof.run.scheduler import Done, Started


def step(
    name: str,
    stage: Stage = Stage.INSTALL,
    needs: tuple[str, ...] = (),
    *,
    exclusive: bool = False,
    gpu: bool = False,
) -> Step:
    return Step(
        owner=name,
        stage=stage,
        cells=(name,),
        needs=needs,
        inputs={},
        digest="",
        timeout=9,
        exclusive=exclusive,
        gpu=gpu,
    )


def evidence(of: Step, outcome: Outcome = Outcome.OK) -> Evidence:
    return Evidence(
        cell=of.owner,
        stage=of.stage,
        digest="",
        outcome=outcome,
        data={},
        inputs={},
        machine={},
        started="",
        seconds=0.0,
    )


class Recorder:
    """Executes steps by sleeping, and remembers who ran beside whom."""

    def __init__(self, *failing: str, seconds: float = 0.05) -> None:
        self.failing = failing
        self.seconds = seconds
        self.order: list[str] = []
        self.lanes: list[int] = []
        self.beside: dict[str, set[str]] = {}
        self._now: set[str] = set()
        self._lock = threading.Lock()

    def __call__(
        self, lane: Sequence[Step], cancel: threading.Event, started: Started, done: Done
    ) -> None:
        self.lanes.append(len(lane))
        for step in lane:
            started(step)
            done(step, self._one(step, cancel))

    def _one(self, step: Step, cancel: threading.Event) -> Evidence:
        with self._lock:
            self._now.add(step.id)
            for other in self._now:
                self.beside.setdefault(other, set()).update(self._now - {other})
                self.beside.setdefault(step.id, set()).update(self._now - {step.id})
        cancelled = cancel.wait(self.seconds)
        with self._lock:
            self._now.discard(step.id)
            self.order.append(step.id)
        if cancelled:
            return evidence(step, Outcome.CANCELLED)
        return evidence(step, Outcome.FAILED if step.id in self.failing else Outcome.OK)


def run(recorder: Recorder, steps: list[Step], jobs: int = 2) -> bool:
    return scheduler.run(
        steps,
        recorder,
        jobs=jobs,
        done=lambda step, evidence: None,
        started=lambda step: None,
    )


def chain(name: str) -> list[Step]:
    return [
        step(name),
        step(name, Stage.INSPECT, (f"{name}:install",)),
        step(name, Stage.THROUGHPUT, (f"{name}:inspect",), exclusive=True),
    ]


def test_a_step_starts_after_what_it_needs() -> None:
    recorder = Recorder()
    assert run(recorder, chain("a") + chain("b"))
    for name in "ab":
        own = [entry for entry in recorder.order if entry.startswith(name)]
        assert own == [f"{name}:install", f"{name}:inspect", f"{name}:throughput"]


def test_an_exclusive_step_runs_alone_and_others_run_side_by_side() -> None:
    recorder = Recorder(seconds=0.5)
    run(recorder, chain("a") + chain("b"))
    assert recorder.beside["a:throughput"] == set()
    assert recorder.beside["a:install"] == {"b:install"}


def test_one_step_at_a_time_holds_the_gpu() -> None:
    recorder = Recorder(seconds=0.5)
    run(recorder, [step("a", gpu=True), step("b", gpu=True), step("c")], jobs=3)
    assert "b:install" not in recorder.beside["a:install"]
    assert "c:install" in recorder.beside["a:install"]


def test_what_stands_on_a_failed_step_is_dropped_and_the_rest_runs() -> None:
    recorder = Recorder("a:install")
    assert run(recorder, chain("a") + chain("b"))
    assert "a:inspect" not in recorder.order
    assert "b:throughput" in recorder.order


def test_never_more_steps_than_jobs() -> None:
    recorder = Recorder()
    run(recorder, [step(name) for name in "abcdefgh"], jobs=3)
    assert recorder.lanes == [1] * 8
    assert len(recorder.order) == 8


def test_a_crowd_of_installs_shares_as_many_lanes_as_there_are_jobs() -> None:
    recorder = Recorder(seconds=0.001)
    run(recorder, [part for number in range(20) for part in chain(f"c{number}")], jobs=2)
    assert recorder.lanes[:2] == [10, 10]
    assert set(recorder.lanes[2:]) == {1}
    assert len(recorder.order) == 60


def test_ctrl_c_cancels_what_runs_and_reports_it() -> None:
    recorder = Recorder(seconds=30)
    ends: list[Outcome] = []
    threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,)).start()
    began = time.monotonic()
    finished = scheduler.run(
        chain("a"),
        recorder,
        jobs=1,
        done=lambda step, evidence: ends.append(evidence.outcome),
        started=lambda step: None,
    )
    assert not finished
    assert ends == [Outcome.CANCELLED]
    assert time.monotonic() - began < 5


def test_an_error_in_the_machinery_is_raised_and_not_swallowed() -> None:
    def broken(lane: Sequence[Step], cancel: threading.Event, started: Started, done: Done) -> None:
        raise RuntimeError("machinery")

    with pytest.raises(RuntimeError, match="machinery"):
        scheduler.run(chain("a"), broken, jobs=1, done=lambda s, e: None, started=lambda s: None)
