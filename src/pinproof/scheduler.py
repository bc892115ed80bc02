"""Walks a plan: starts each step when what it needs is done and the machine has room for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pinproof.evidence import Evidence, Outcome
from pinproof.plan import Step

#: Executes one step and returns its evidence. Must return soon after the event is set.
Execute = Callable[[Step, threading.Event], Evidence]

#: How often the main thread looks up, so that Ctrl-C is seen while children run, in seconds.
TICK = 0.2


def run(
    steps: Sequence[Step],
    execute: Execute,
    *,
    jobs: int,
    done: Callable[[Step, Evidence], None],
    started: Callable[[Step], None],
) -> bool:
    """Execute `steps` and return True; False where Ctrl-C ended the run early.

    At most `jobs` steps run at a time, at most one of them on the GPU; an exclusive step runs
    alone. A step whose need did not end OK is dropped: its cell's verdict comes from that need.
    `started` and `done` are called in the calling thread.
    """
    waiting = {step.id: step for step in steps}
    running: dict[Future[Evidence], Step] = {}
    failed: set[str] = set()
    cancel = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        try:
            while waiting or running:
                _drop(waiting, failed)
                for step in _ready(waiting, list(running.values()), jobs):
                    del waiting[step.id]
                    started(step)
                    running[pool.submit(execute, step, cancel)] = step
                finished, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
                for future in finished:
                    step = running.pop(future)
                    evidence = future.result()
                    if evidence.outcome is not Outcome.OK:
                        failed.add(step.id)
                    done(step, evidence)
        except KeyboardInterrupt:
            cancel.set()
            for future, step in running.items():
                done(step, future.result())
            return False
        except BaseException:
            cancel.set()
            raise
    return True


def _drop(waiting: dict[str, Step], failed: set[str]) -> None:
    """Take out the steps that stand on a failed one, and those that stand on them."""
    while lost := [step.id for step in waiting.values() if failed.intersection(step.needs)]:
        for step_id in lost:
            del waiting[step_id]
            failed.add(step_id)


def _ready(waiting: dict[str, Step], running: Sequence[Step], jobs: int) -> list[Step]:
    """Return the steps to start now, the ones nearest to their cell's end first.

    Finishing a cell before the next is begun gives the first verdict early. An exclusive step
    that is ready holds back others, or it would wait until everything else is done.
    """
    if any(step.exclusive for step in running):
        return []
    pending = {*waiting, *(step.id for step in running)}
    free = [step for step in waiting.values() if not pending.intersection(step.needs)]
    free.sort(key=lambda step: -step.stage.position)
    chosen: list[Step] = []
    gpu_busy = any(step.gpu for step in running)
    for step in free:
        if step.exclusive:
            if not running and not chosen:
                return [step]
            return chosen
        if len(running) + len(chosen) >= jobs:
            break
        if step.gpu and gpu_busy:
            continue
        gpu_busy = gpu_busy or step.gpu
        chosen.append(step)
    return chosen
