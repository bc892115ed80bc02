"""The throughput stage: fresh processes time pairs, and their rounds become ratios per point.

This process imports neither torch nor a candidate: what they do to their process is evidence.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinproof_cell import candidates
from pinproof_cell.request import SCHEMA, Request
from pinproof_cell.suite import absent
from pinproof_cell.throughput import pairs, workload
from pinproof_cell.throughput.task import Job, Task
from pinproof_cell.world import child, device
from pinproof_cell.world.journal import Journal

#: A statistic from fewer rounds than this, all processes together, is not trusted.
LEAST_ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured: processes, rounds in each, the precision, times in seconds."""

    processes: int
    least: int
    most: int
    precision: float
    seconds: float
    budget: float
    hang: float

    def rule(self) -> dict[str, float]:
        """Return the arguments of each process's `pairs.StopRule`."""
        return {
            "precision": self.precision,
            "least": self.least,
            "most": self.most,
            "seconds": self.seconds,
        }


GPU = Plan(processes=3, least=20, most=30, precision=0.01, seconds=20 / 3, budget=120.0, hang=90.0)
#: Starting Python and torch takes a third of the time here, and a ratio to an interpreted kernel
#: is a sign of life and not a figure to compare: two processes, and a quarter will do.
CPU = Plan(processes=2, least=10, most=20, precision=0.25, seconds=2.0, budget=13.0, hang=30.0)


@dataclass(kw_only=True)
class Findings:
    """What the processes said: the machine, an anchor from each, and how each job ended.

    ``extensions`` are the compiled libraries under test that they had loaded, by path.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    anchors: list[float] = field(default_factory=list)
    ended: dict[Job, list[dict[str, Any]]] = field(default_factory=dict)
    eager: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, job: Job, result: dict[str, Any]) -> None:
        """Take in the end of one job."""
        self.ended.setdefault(job, []).append(result)
        self.extensions |= {each["path"]: each for each in result.get("extensions", ())}

    def measurable(self, jobs: Iterable[Job]) -> tuple[Job, ...]:
        """Return those of `jobs` that no process has found to be broken or unsupported."""
        return tuple(job for job in jobs if all(map(_measured, self.ended.get(job, ()))))


def run(document: dict[str, Any]) -> dict[str, Any]:
    """Measure the cell of a request; returns the throughput document, whatever candidates do."""
    request = Request.parse(document)
    started = time.monotonic()
    on_cpu = request.target == "cpu"
    plan = CPU if on_cpu else GPU
    budget = request.budget or plan.budget
    findings = Findings()
    jobs = choose(request, findings)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, plan.processes + 1):
            # The first process also compiles; each may use half of what is left, the last all.
            left = budget - (time.monotonic() - started)
            deadline = time.monotonic() + (left if number == plan.processes else left / 2)
            waiting = findings.measurable(jobs)
            measure(request, plan, findings, waiting, number, deadline, Path(folder))
    anchor = pairs.median(findings.anchors) if findings.anchors else None
    points = [conclude(job, findings, plan, request.target, anchor) for job in jobs]
    for point in points:
        print(describe(point), flush=True)
    return {
        "schema": SCHEMA,
        "stage": "throughput",
        "cell": request.cell,
        "device": findings.machine.get("device") or device.facts("cpu"),
        "clock": "monotonic" if on_cpu else "cuda-graph",
        "baseline": "triton-interpreter" if on_cpu else "triton",
        "anchor": {"name": findings.machine.get("anchor", {}).get("name"), "seconds": anchor},
        "roof": findings.machine.get("roof"),
        "processes": plan.processes,
        "precision": plan.precision,
        "budget": {"seconds": budget, "spent": round(time.monotonic() - started, 1)},
        "extensions": [each for _, each in sorted(findings.extensions.items())],
        "points": points,
        "incomplete": list(incomplete(points)),
    }


def incomplete(points: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Say what the machine kept from being timed: such a run is made again.

    One point without time beside others that had some is only ambiguous. Where none had any, the
    machine was busy, and nothing is known of the cell's speed.
    """
    points = list(points)
    timed = any(point["ratio"] is not None for point in points)
    for point in points:
        late = point["status"] == "AMBIGUOUS" and point["ratio"] is None
        if point["status"] == "NOT-RUN" or (late and not timed):
            yield describe(point)


def choose(request: Request, findings: Findings) -> tuple[Job, ...]:
    """Return a job for every candidate at every point; those it does not support end at once."""
    jobs = []
    found = candidates.find(request.axes, "cpu" if request.target == "cpu" else "cuda")
    for point in workload.points(request.target):
        for candidate in found:
            jobs.append(Job(candidate=candidate.name, point=point.name))
            lacking = absent.features(request.without.get(candidate.origin, ()))
            if missing := point.features - (candidate.supports - lacking):
                reason = f"it does not support {', '.join(sorted(missing))}"
                findings.add(jobs[-1], {"status": "UNSUPPORTED", "reason": reason})
    return tuple(jobs)


def measure(
    request: Request,
    plan: Plan,
    findings: Findings,
    waiting: tuple[Job, ...],
    number: int,
    deadline: float,
    folder: Path,
) -> None:
    """Let process `number` do the jobs; where one of them ends it, a fresh one does the rest."""
    attempt = 0
    while waiting:
        attempt += 1
        log = folder / f"journal-{number}-{attempt}.jsonl"
        task = Task(
            target=request.target,
            axes=dict(request.axes),
            seed=request.seed,
            number=number,
            deadline=deadline,
            hang=plan.hang,
            journal=str(log),
            jobs=waiting,
            eager=tuple(findings.eager),
            rule=plan.rule(),
        )
        task.write(folder / "task.json")
        timeout = max(0.0, deadline - time.monotonic()) + plan.hang
        words = ["-m", "pinproof_cell.throughput.measurement", str(folder / "task.json")]
        ended = child.run(words, target=request.target, timeout=timeout, show=True)
        before = len(findings.eager)
        settled = digest(Journal(log).lines(), findings, ended, plan.hang)
        if not settled and len(findings.eager) == before:
            # It died before its first job: trying again would find the same.
            slow = ended.timed_out or ended.signal in child.OUTSIDE
            status = "NOT-RUN" if slow else "CRASH" if ended.signal else "ERROR"
            reason = ended.reason or "nothing was done"
            for job in waiting:
                end = {"status": status, "reason": reason, "signal": ended.signal}
                findings.add(job, end)
            return
        waiting = tuple(job for job in waiting if job not in settled)


def digest(
    lines: Iterable[dict[str, Any]], findings: Findings, ended: child.Ended, hang: float
) -> set[Job]:
    """Take a journal into `findings`; returns the jobs that need not be tried again."""
    settled: set[Job] = set()
    active: Job | None = None
    for line in lines:
        if line["kind"] == "machine":
            findings.machine = line
            findings.anchors.append(line["anchor"]["seconds"])
            continue
        job = Job(**line["job"])
        active = job if line["kind"] == "begin" else None
        if line["kind"] == "end" and line["status"] == "UNCAPTURED":
            findings.eager[job.candidate] = line["reason"]
        elif line["kind"] == "end":
            settled.add(job)
            findings.add(job, line)
    if active is not None:
        # What a candidate raises is in the journal, so 1 is the watchdog's status.
        hung = ended.timed_out or ended.returncode == 1
        why = f"no end within {hang:.0f} s" if hung else ended.reason or "the process ended"
        status = "HANG" if hung else "NOT-RUN" if ended.signal in child.OUTSIDE else "CRASH"
        end = {"status": status, "reason": f"{why} while it was timed", "signal": ended.signal}
        findings.add(active, end)
        settled.add(active)
    return settled


def conclude(
    job: Job, findings: Findings, plan: Plan, target: str, anchor: float | None
) -> dict[str, Any]:
    """Return the entry of one candidate at one point from what its processes found."""
    results = findings.ended.get(job, [])
    entry: dict[str, Any] = {
        "candidate": job.candidate,
        "point": job.point,
        **dict.fromkeys(("ratio", "low", "high", "tflops", "reason")),
        "rounds": 0,
        "processes": 0,
    }
    bad = [result for result in results if not _measured(result)]
    if bad:
        return entry | {key: bad[0].get(key) for key in ("status", "reason", "signal")}
    kept = [result for result in results if result.get("samples")]
    if not kept:
        return entry | {"status": "AMBIGUOUS", "reason": "no round fitted into the budget"}
    rounds = [[pairs.log_ratio(*sample) for sample in result["samples"]] for result in kept]
    found = pairs.interval(rounds)
    doubt = _doubt(found, sum(map(len, rounds)), plan)
    shape = next(point for point in workload.points(target) if point.name == job.point)
    return entry | {
        "status": "AMBIGUOUS" if doubt else "OK",
        "reason": doubt,
        "ratio": _short(found.ratio),
        "low": _short(found.low),
        "high": _short(found.high),
        "processes": len(kept),
        "clock_reason": findings.eager.get(job.candidate),
        **_times(kept, shape, anchor),
    }


def _times(
    kept: list[dict[str, Any]], shape: workload.Point, anchor: float | None
) -> dict[str, Any]:
    """Return what the times themselves tell, and under which conditions they were taken."""
    samples = [sample for result in kept for sample in result["samples"]]
    candidate, reference = ([sample[side] for sample in samples] for side in (0, 1))
    return {
        "rounds": len(samples),
        "tflops": _short(shape.flop() / pairs.median(candidate) / 1e12),
        "seconds": _spread(candidate),
        "reference_seconds": _spread(reference),
        "reference_over_anchor": _short(pairs.median(reference) / anchor) if anchor else None,
        "clock": kept[0]["clock"],
        "launches": kept[0]["launches"],
        "warm": all(result["warm"] for result in kept),
        "discarded": sum(result["discarded"] for result in kept),
        "roofline": max(result["roofline"] or 0.0 for result in kept) or None,
        "conditions": [result["conditions"] for result in kept],
        "rounds_by_process": [len(result["samples"]) for result in kept],
        "samples": [[_short(a), _short(b)] for a, b in samples],
    }


def describe(point: dict[str, Any]) -> str:
    """Return one line on one point, for the log."""
    said = f"throughput {point['candidate']} {point['point']}: {point['status']}"
    if point["ratio"] is not None:
        said += f" {point['ratio']:.4g}x [{point['low']:.4g}, {point['high']:.4g}]"
        said += f" from {point['rounds']} rounds in {point['processes']} processes"
    return f"{said}, {point['reason']}" if point["reason"] else said


def _measured(result: dict[str, Any]) -> bool:
    return result["status"] in ("OK", "SKIPPED")


def _doubt(found: pairs.Interval, rounds: int, plan: Plan) -> str | None:
    if rounds < LEAST_ROUNDS:
        return f"only {rounds} rounds fitted into the budget"
    if found.half_width > plan.precision:
        return f"known to {found.half_width:.1%} only, not to {plan.precision:.0%}"
    return None


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _spread(values: list[float]) -> dict[str, float]:
    shares = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
    return {name: _short(pairs.quantile(values, share)) for name, share in shares.items()}
