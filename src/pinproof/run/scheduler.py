"""Walks a plan: starts each step when what it needs is done and the machine has room for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.plan.plan import Step
from pinproof.plan.stage import Stage

#: How often the main thread looks up, so that Ctrl-C is seen while children run, in seconds.
TICK = 0.2

#: Installs share a child nox where more than this many of them wait for each job: starting nox
#: takes longer than an install that has nothing to do.
CROWD = 4

Started = Callable[[Step], None]
Done = Callable[[Step, Evidence], None]


class Execute(Protocol):
    """Executes the steps of a lane, one after the other, and tells when each begins and ends."""

    def __call__(
        self, lane: Sequence[Step], cancel: threading.Event, started: Started, done: Done
    ) -> None:
        """Must call `done` once for every step of `lane`, soon after `cancel` is set."""


def run(
    steps: Sequence[Step], execute: Execute, *, jobs: int, done: Done, started: Started
) -> bool:
    """Execute `steps` and return True; False where Ctrl-C ended the run early.

    At most `jobs` lanes run at a time, at most one step on the GPU; an exclusive step runs
    alone. A step whose need did not end OK is dropped: its cell's verdict comes from that need.
    `started` and `done` are called in the calling thread.
    """
    waiting = {step.id: step for step in steps}
    running: dict[str, Step] = {}
    failed: set[str] = set()
    cancel = threading.Event()
    told: queue.SimpleQueue[tuple[Step, Evidence | None]] = queue.SimpleQueue()
    lanes: list[Future[None]] = []

    def hear(seconds: float) -> None:
        try:
            step, evidence = told.get(timeout=seconds)
        except queue.Empty:
            return
        if evidence is None:
            started(step)
            return
        del running[step.id]
        if evidence.outcome is not Outcome.OK:
            failed.add(step.id)
        done(step, evidence)

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        try:
            while waiting or running:
                _drop(waiting, failed)
                lanes = _open(lanes)
                if running and not lanes and told.empty():
                    raise RuntimeError(f"no word of {', '.join(running)}")
                for lane in _lanes(waiting, list(running.values()), jobs, len(lanes)):
                    for step in lane:
                        running[step.id] = waiting.pop(step.id)
                    lanes.append(
                        pool.submit(
                            execute,
                            lane,
                            cancel,
                            lambda step: told.put((step, None)),
                            lambda step, evidence: told.put((step, evidence)),
                        )
                    )
                hear(TICK)
        except KeyboardInterrupt:
            cancel.set()
            while running and (not all(lane.done() for lane in lanes) or not told.empty()):
                hear(TICK)
            return False
        except BaseException:
            cancel.set()
            raise
    return True


def _open(lanes: Sequence[Future[None]]) -> list[Future[None]]:
    """Return the lanes that still run; raises what went wrong in the machinery of another."""
    for lane in lanes:
        if lane.done():
            lane.result()
    return [lane for lane in lanes if not lane.done()]


def _drop(waiting: dict[str, Step], failed: set[str]) -> None:
    """Take out the steps that stand on a failed one, and those that stand on them."""
    while lost := [step.id for step in waiting.values() if failed.intersection(step.needs)]:
        for step_id in lost:
            del waiting[step_id]
            failed.add(step_id)


def _lanes(
    waiting: dict[str, Step], running: Sequence[Step], jobs: int, busy: int
) -> list[tuple[Step, ...]]:
    """Return what to start now: lanes of one step, or of many where a crowd of installs waits.

    Steps nearest to their cell's end come first, so that the first verdict is early. An exclusive
    step that is ready holds back others, or it would wait until everything else is done.
    """
    if not waiting or any(step.exclusive for step in running):
        return []
    pending = {*waiting, *(step.id for step in running)}
    free = [step for step in waiting.values() if not pending.intersection(step.needs)]
    free.sort(key=lambda step: -step.stage.position)
    if free and free[0].exclusive:
        return [] if running else [(free[0],)]
    room = jobs - busy
    if room < 1:
        return []
    crowd = [step for step in free if step.stage is Stage.INSTALL]
    if len(crowd) == len(free) and len(crowd) > CROWD * jobs:
        return [tuple(crowd[number::room]) for number in range(room)]
    chosen: list[tuple[Step, ...]] = []
    gpu_busy = any(step.gpu for step in running)
    for step in free:
        if len(chosen) < room and not (step.gpu and gpu_busy):
            gpu_busy = gpu_busy or step.gpu
            chosen.append((step,))
    return chosen
