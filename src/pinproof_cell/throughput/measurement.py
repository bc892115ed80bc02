"""One fresh process of the throughput probe: times pairs, and writes down each as it ends.

Run as ``python -m pinproof_cell.throughput.measurement TASK.json``; `task` says what is read
and written.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pinproof_cell import candidates
from pinproof_cell.call import Call
from pinproof_cell.candidates.distribution import failure
from pinproof_cell.kernels import reference
from pinproof_cell.throughput import arms, pairs, workload
from pinproof_cell.throughput.bench import Bench
from pinproof_cell.throughput.rounds import BaselineError, Rounds
from pinproof_cell.throughput.task import Job, Task
from pinproof_cell.throughput.workload import Point
from pinproof_cell.world import device, loaded, memory
from pinproof_cell.world.journal import Journal

#: The longest warm-up of a pair, and the least time of a pair that was begun, in seconds.
LONGEST_WARM_UP, LEAST_SECONDS = 3.0, 1.0


class Process:
    """Works through the jobs of a task and keeps the journal."""

    def __init__(self, task: Task) -> None:
        seed = 1_000 * task.seed + task.number
        self.task = task
        self.rng = random.Random(seed)  # noqa: S311 - an order of rounds, not a secret
        self.bench = Bench(task.target, seed)
        self.points = {point.name: point for point in workload.points(task.target)}
        self.reasons: dict[str, str | None] = {}
        self.loaded: dict[str, list[dict[str, Any]]] = {}
        self.write = Journal(Path(task.journal)).add

    def run(self) -> None:
        """Measure all jobs of the task, with the time that is left shared evenly among them."""
        jobs = self.task.jobs
        anchor = self.bench.anchor()
        self.roof = self.bench.roof(anchor["flops"])
        self.write(
            "machine",
            device=device.facts(self.task.target),
            anchor=anchor,
            roof=asdict(self.roof),
        )
        for index, job in enumerate(jobs):
            self.work(job, len(jobs) - index)

    def work(self, job: Job, left: int) -> None:
        """Do one job of the `left` that share the time, whatever it does, and keep the journal."""
        self.write("begin", job=asdict(job))
        # A C extension that hangs cannot be interrupted from Python: this ends the process.
        faulthandler.dump_traceback_later(self.task.hang, exit=True)
        try:
            result = self.pair(job.candidate, self.points[job.point], left)
        except arms.CaptureError as error:
            result = {"status": "UNCAPTURED", "reason": str(error)}
        except BaselineError as error:
            result = {"status": "HARNESS-BROKEN", "reason": str(error)}
        except (Exception, SystemExit) as error:  # whatever a candidate raises is evidence
            status = "NOT-RUN" if memory.is_full(error) else "ERROR"
            result = {"status": status, "reason": failure(error)}
        faulthandler.cancel_dump_traceback_later()
        self.write("end", job=asdict(job), **result, extensions=self.extensions(job.candidate))
        what = result["reason"] or f"{len(result['samples'])} rounds"
        said = f"{job.candidate} {job.point}: {result['status']}, {what}"
        print(f"process {self.task.number}: {said}", flush=True)
        if result["status"] == "UNCAPTURED" or not self.bench.sound():
            os._exit(0)  # the parent gives the remaining jobs to a fresh process

    def pair(self, name: str, point: Point, left: int) -> dict[str, Any]:
        """Time one pair; returns the end of its job for the journal."""
        if reason := self.unavailable(name):
            return {"status": "UNSUPPORTED", "reason": reason}
        if time.monotonic() > self.task.deadline:
            return {"status": "SKIPPED", "reason": "no time was left in the budget"}
        q, k, v = self.bench.inputs(point)
        forward = partial(candidates.get(name).forward, Call(q=q, k=k, v=v, **point.keywords))
        baseline = partial(_baseline, q, k, v, **point.keywords)
        capture = name not in self.task.eager
        rounds = Rounds(
            candidate=self.bench.arm(partial(_output, forward), capture=capture),
            reference=self.bench.arm(partial(_output, baseline), capture=capture),
            gauges=self.bench.gauges,
            rng=self.rng,
        )
        # Only now: what was compiled for the first time must not cost the rounds their time.
        seconds = max(LEAST_SECONDS, (self.task.deadline - time.monotonic()) / left)
        warm_for = min(LONGEST_WARM_UP, seconds / 3)
        warm = rounds.warm_up(warm_for, self.bench.block, self.bench.steady)
        rule = pairs.StopRule(**self.task.rule)  # type: ignore[arg-type]
        wrong = rounds.measure(replace(rule, seconds=min(rule.seconds, seconds - warm_for)))
        kept = rounds.kept()
        share = self.roof.share(point, pairs.median([a for a, _ in kept])) if kept else None
        if share is not None and share > workload.ROOF:
            wrong = wrong or f"{share:.2f} of the roofline is more than the machine can do"
        return {
            "status": "WRONG" if wrong else "OK",
            "reason": wrong,
            "clock": rounds.candidate.clock,
            "launches": [rounds.candidate.launches, rounds.reference.launches],
            "warm": warm,
            "samples": kept,
            "discarded": len(rounds.samples) - len(kept),
            "roofline": share,
            "conditions": rounds.conditions(),
        }

    def extensions(self, name: str) -> list[dict[str, Any]]:
        """Return what is loaded once a candidate was; hashing is not repeated for each point."""
        if name not in self.loaded:
            self.loaded[name] = loaded.extensions()
        return self.loaded[name]

    def unavailable(self, name: str) -> str | None:
        """Return why a candidate cannot run here, or None; imports it the first time."""
        if name not in self.reasons:
            self.reasons[name] = candidates.get(name).available()
            # torch collects garbage before each capture; what was imported need not be searched.
            gc.freeze()
        return self.reasons[name]


def _baseline(*inputs: Tensor, **keywords: Any) -> tuple[Tensor, Any]:
    """Call the baseline. Raises BaselineError: its failure is ours, and not the candidate's."""
    try:
        return reference.attention(*inputs, mode="fast", **keywords)
    except Exception as error:
        if memory.is_full(error):
            raise
        raise BaselineError(f"the baseline raised {failure(error)}") from error


def _output(call: Callable[[], tuple[Tensor, Any]]) -> Tensor:
    return call()[0]


if __name__ == "__main__":
    with torch.no_grad():
        Process(Task.read(Path(sys.argv[1]))).run()
