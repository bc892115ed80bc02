"""The verb `calibrate`: what right kernels reach, and whether the judge rejects one of them."""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinproof_cell.calibration import summary
from pinproof_cell.calibration.summary import NO_RUNS
from pinproof_cell.candidates.distribution import version
from pinproof_cell.document import write
from pinproof_cell.judge import thresholds
from pinproof_cell.options import how_many, seconds_or_none
from pinproof_cell.request import SCHEMA, BadRequestError
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

#: How many processes share the cases at most: each holds a context of the GPU, and many cases.
MOST_PROCESSES = 12
#: After so many dead processes something else than the kernels is wrong.
MOST_DEATHS = 20
#: How long after its time a process may take for its last run, in seconds.
GRACE = 120.0

EXAMPLE = """\
Cases of chance, as `fuzz` draws them, are put to kernels that are right: on a CPU valid schedules
emulated step by step, our own kernel in the interpreter for a share, and torch's math; on a GPU our
own, torch's flash, cuDNN, efficient and math, and flash-attn 2 where it is installed.

Every run is kept in a folder OUT.journal until all are done: the same command goes on where one was
ended, and with --seconds 0 it says what there is.

examples:
  python -m pinproof_cell calibrate --json calibration.json
  python -m pinproof_cell calibrate --device cuda --runs 10000 --seconds 420 --json sm_90.json

exit status: 0 the judge passed every run; 1 it rejected one, or there was none; 2 wrong words
"""


@dataclass(frozen=True)
class Plan:
    """How much to run, in which folder the runs are kept, and how it is told meanwhile."""

    device: str
    runs: int
    seconds: float
    folder: Path
    seed: int = 0
    processes: int = 2
    say: Callable[[str], None] = print


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    sub.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    sub.add_argument("--runs", type=how_many, default=10_000, help="how many (default 10000)")
    sub.add_argument(
        "--seconds", type=seconds_or_none, default=1800.0, help="at most (default 1800)"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the cases and of their inputs")
    default = "as many as there are processors, 12 at most"
    sub.add_argument("--processes", type=how_many, help=f"default {default}")


def main(options: argparse.Namespace) -> tuple[None, int]:
    """Run the verb, which writes its document; returns the exit status. Raises BadRequestError."""
    plan = Plan(
        device=options.device,
        runs=options.runs,
        seconds=options.seconds,
        folder=options.json.with_name(f"{options.json.name}.journal"),
        seed=options.seed,
        processes=options.processes or min(len(os.sched_getaffinity(0)), MOST_PROCESSES),
        say=lambda line: print(line, flush=True),
    )
    told = calibrate(plan)
    write(options.json, told)
    if told["runs"] + len(told["known"]) >= plan.runs:
        shutil.rmtree(plan.folder)
    print("\n".join(table(told)))
    return None, 1 if told["rejected"] or not told["runs"] else 0


def calibrate(plan: Plan) -> dict[str, Any]:
    """Return the document of the verb. Raises BadRequestError where nothing can run."""
    started = time.monotonic()
    journals = _journals(plan)
    stop = threading.Event()
    with child.threads(plan.processes) as pool:
        shares = [
            pool.submit(_share, plan, number, journal, started + plan.seconds, stop)
            for number, journal in enumerate(journals)
        ]
        try:
            while not all(share.done() for share in shares):
                time.sleep(1.0)
                _progress(plan, journals, time.monotonic() - started)
        finally:
            stop.set()
        for share in shares:
            share.result()
    lines = [line for journal in journals for line in journal.lines("end")]
    sessions = [line for journal in journals for line in journal.lines("session")]
    return document(plan, lines, sessions[0], round(time.monotonic() - started, 1))


def _journals(plan: Plan) -> list[Journal]:
    """Return the journal of each process, with what it holds of a run that was ended.

    Raises BadRequestError where the folder holds that of another plan.
    """
    same = {"device": plan.device, "seed": plan.seed, "processes": plan.processes}
    plan.folder.mkdir(exist_ok=True)
    about = Journal(plan.folder / "plan.jsonl")
    told = about.lines("plan")
    if not told:
        about.add("plan", **same)
    elif same != {key: told[0][key] for key in same}:
        text = f"{plan.folder} holds runs of another calibration: {told[0]}"
        raise BadRequestError(f"{text}\n  next step: ask for the same, or delete that folder")
    journals = [Journal(plan.folder / f"{number}.jsonl") for number in range(plan.processes)]
    for journal in journals:
        # It was ended with its process, by no fault of the kernel.
        while open_ := journal.unfinished("kernel", "number"):
            _end(journal, open_, "NOT-RUN", "the calibration was ended meanwhile")
    return journals


def _progress(plan: Plan, journals: list[Journal], spent: float) -> None:
    if int(spent) % 10 == 0:
        lines = [line for journal in journals for line in journal.lines("end")]
        rejected = sum(line["status"] not in ("PASS", *NO_RUNS) for line in lines)
        plan.say(f"calibrate {spent:.0f} s: {len(lines)} runs, {rejected} rejected")


def _share(plan: Plan, number: int, journal: Journal, until: float, stop: threading.Event) -> None:
    """Run one share to its end, in as many processes as that takes."""
    runs = plan.runs // plan.processes + (number < plan.runs % plan.processes)
    words = ["-m", "pinproof_cell.calibration.worker", "--device", plan.device]
    words += ["--seed", str(plan.seed), "--share", str(number), str(plan.processes)]
    words += ["--runs", str(runs), "--until", str(until), "--journal", str(journal.path)]
    for _ in range(MOST_DEATHS):
        limit = max(until - time.monotonic(), 0) + GRACE
        ended = child.run(words, target=plan.device, timeout=limit)
        if not ended.reason or stop.is_set():
            return
        died = journal.unfinished("kernel", "number")
        if died is None:
            break
        outside = ended.signal in child.OUTSIDE
        status = "HANG" if ended.timed_out else "NOT-RUN" if outside else "CRASH"
        _end(journal, died, status, ended.reason)
    raise BadRequestError(f"calibration cannot run here: {ended.reason}\n{ended.output[-2000:]}")


def _end(journal: Journal, begun: Mapping[str, Any], status: str, reason: str) -> None:
    asked = {key: begun[key] for key in ("kernel", "number", "case", "dtype")}
    more: dict[str, Any] = {"stats": {}, "size": (0, 0), "reasons": [reason], "defect": None}
    journal.add("end", **asked, status=status, **more)


def document(
    plan: Plan, lines: list[dict[str, Any]], session: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Return the document of the verb from the runs' lines."""
    runs = [line for line in lines if line["status"] not in NO_RUNS]
    target = session["device"]["capability"]
    frozen = thresholds.load(target)
    known = summary.limits(frozen)
    keys = ("kernel", "case", "status", "reasons", "defect")
    failed = [{key: run[key] for key in keys} for run in runs if run["status"] != "PASS"]
    # A known defect of a kernel is no error of the judge, and tells nothing of right kernels.
    runs = [run for run in runs if not run["defect"]]
    return {
        "schema": SCHEMA,
        "stage": "calibrate",
        "device": session["device"],
        "versions": {name: version(name) for name in ("torch", "triton")},
        "thresholds": {"target": target, "source": frozen.source},
        "seed": plan.seed,
        "seconds": seconds,
        "cases": len({run["number"] for run in runs}),
        "runs": len(runs),
        "rejected": [run for run in failed if not run["defect"]],
        "known": [run for run in failed if run["defect"]],
        "absent": session["absent"],
        "statistics": summary.proposed(runs, known),
        "kernels": summary.kernels(runs, known),
        "histograms": summary.histograms(runs, known),
    }


def table(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads: every rejection, and what each statistic reached."""
    for run in told["rejected"]:
        yield f"{run['status']} {run['kernel']} {run['case']}: {'; '.join(run['reasons'])}"
    for defect, count in Counter(run["defect"] for run in told["known"]).items():
        yield f"the known defect {defect}: {count} runs more"
    for name, reason in told["absent"].items():
        yield f"not asked: {name}, {reason}"
    yield ""
    yield f"{'statistic':12} {'largest':>9} {'x 1.5':>9} {'frozen':>7}  of kernel, case"
    for name, found in told["statistics"].items():
        yield (
            f"{name:12} {found['largest']:9.4g} {found['proposed']:9.4g} {found['frozen']:7.4g}  "
            f"{found['kernel']}, {found['case']}"
        )
    yield ""
    yield (
        f"{told['runs']} runs of {len(told['kernels'])} kernels on {told['cases']} cases, "
        f"{len(told['rejected'])} rejected, {told['seconds']:.0f} s, {told['device']['name']}"
    )
