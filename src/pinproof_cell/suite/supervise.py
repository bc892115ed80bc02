"""Run the attention suite in children, and go on after each that crashes or hangs.

The child writes a journal, one JSON line before and one after every case: when it dies, the open
line names the case. What follows runs in a fresh child on the same journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinproof_cell.world import child

#: How long a child may take before its first case, in seconds: `import vllm` reads gigabytes.
START_LIMIT = 300.0
#: How long a case may take, in seconds, by device: on a GPU its first launch compiles.
CASE_LIMIT = {"cpu": 120.0, "cuda": 300.0}
#: After so many dead children the remaining cases count as errors: each restart imports torch.
MOST_DEATHS = 20
#: Before the number of calls, in place of a case: the check that they all say the same.
REPEATS = "repeats-"


@dataclass(frozen=True)
class Journal:
    """The record of one candidate's run: "session", "start" and "end" events in order."""

    path: Path

    def add(self, event: str, **facts: Any) -> None:
        """Append one event and flush it, so that it outlives this process."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": event, "at": time.time(), **facts}) + "\n")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one kind; a last line that a dying child cut short is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event["event"] == kind:
                    found.append(event)
        return found

    def started(self) -> list[str]:
        """Return the ids of the cases that were begun."""
        return [event["case"] for event in self.events("start")]

    def ended(self) -> dict[str, dict[str, Any]]:
        """Return the result of each finished case by its id."""
        return {event["case"]: event for event in self.events("end")}

    def open_case(self) -> str | None:
        """Return the case that was begun and has no result, or None."""
        ended = self.ended()
        return next((case for case in self.started() if case not in ended), None)


@dataclass(frozen=True)
class Suite:
    """What to run: the pytest suite in `directory`, `cases` of it, for `target`.

    Without a directory the children are `pinproof_cell.suite.check_child`, which needs no pytest;
    after `most_deaths` dead children the remaining cases count as errors.
    """

    directory: Path | None
    cases: Sequence[str]
    target: str
    seed: int = 0
    case_limit: float | None = None
    start_limit: float = START_LIMIT
    most_deaths: int = MOST_DEATHS
    say: Callable[[str], None] = field(default=print)

    @property
    def device(self) -> str:
        """The torch device that the cases run on."""
        return "cpu" if self.target == "cpu" else "cuda"

    @property
    def limit(self) -> float:
        """How long one case may take, in seconds."""
        return CASE_LIMIT[self.device] if self.case_limit is None else self.case_limit


@dataclass(frozen=True)
class Run:
    """The results of one candidate, a dict per case in the order of the suite.

    ``session`` holds name, version and device; its ``reason`` says why there are no results, if so.
    """

    session: dict[str, Any]
    cases: list[dict[str, Any]]


def supervise(candidate: str, suite: Suite) -> Run:
    """Run every case of `suite` on `candidate`, in as many children as that takes."""
    with tempfile.TemporaryDirectory(prefix="pinproof-") as scratch:
        journal = Journal(Path(scratch) / "journal.jsonl")
        deaths = 0
        while len(journal.ended()) < len(suite.cases):
            begun = len(journal.started())
            ended = _child(candidate, suite, journal, Path(scratch) / "output.txt")
            if _unavailable(journal):
                break
            deaths += _blame(journal, ended, suite)
            if len(journal.started()) == begun or deaths == suite.most_deaths:
                _give_up(journal, ended, suite, deaths)
        ended_cases = journal.ended()
        session = (journal.events("session") or [{}])[-1]
    keys = ("status", "stats", "reasons", "signal", "seconds")
    return Run(
        session,
        [
            {"id": case, **{key: ended_cases[case][key] for key in keys}}
            for case in suite.cases
            if case in ended_cases
        ],
    )


def _unavailable(journal: Journal) -> bool:
    return any(session["reason"] for session in journal.events("session"))


def _blame(journal: Journal, ended: child.Ended, suite: Suite) -> bool:
    """Give the case that was open when the child ended its result; return whether one was."""
    case = journal.open_case()
    if case is None:
        return False
    status = "HANG" if ended.timed_out else "CRASH"
    reason = f"no answer in {suite.limit:g} s" if ended.timed_out else ended.reason
    suite.say(f"correctness {case}: {status}, {reason}")
    journal.add(
        "end",
        case=case,
        status=status,
        stats={},
        reasons=[reason or "the child ended inside this case"],
        signal=ended.signal,
        seconds=round(time.time() - journal.events("start")[-1]["at"], 3),
    )
    return True


def _give_up(journal: Journal, ended: child.Ended, suite: Suite, deaths: int) -> None:
    """Record the remaining cases as ERROR: what did not run is never a pass."""
    cause = ended.reason or "pytest ran none of them"
    told = f"{deaths} crashes before it" if deaths == suite.most_deaths else f"not run: {cause}"
    suite.say(f"correctness: giving up, {told}\n{ended.output[-2000:]}")
    done = journal.ended()
    for case in suite.cases:
        if case not in done:
            # The signal that ended a child outside any case is nobody's; it stands in the reason.
            journal.add("start", case=case)
            journal.add(
                "end", case=case, status="ERROR", stats={}, reasons=[told], signal=None, seconds=0.0
            )


def _child(candidate: str, suite: Suite, journal: Journal, output: Path) -> child.Ended:
    """Run one child to its end; kill it where its first case or any case takes too long."""
    argv = [
        *(sys.executable, "-m", *_program(suite.directory)),
        *("--candidate", candidate, "--device", suite.device, "--target", suite.target),
        *("--seed", str(suite.seed), "--journal", os.fspath(journal.path)),
    ]
    chosen = output.with_name("cases.json")
    chosen.write_text(json.dumps(list(suite.cases)), encoding="utf-8")
    argv += ["--cases", os.fspath(chosen)]
    extra = {"OMP_NUM_THREADS": "1"} if suite.device == "cpu" else {}
    extra["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    started = time.monotonic()
    with output.open("w+b") as sink, _terminable():
        process = subprocess.Popen(
            argv,
            env=child.environment(suite.target, extra),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            timed_out = _watch(process, candidate, suite, journal)
        finally:
            # Also where we are told to end: a group of its own does not die with ours.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return child.Ended(
        returncode=process.returncode,
        seconds=time.monotonic() - started,
        output=output.read_text(encoding="utf-8", errors="replace")[-20_000:],
        timed_out=timed_out,
    )


def _program(directory: Path | None) -> list[str]:
    if directory is None:
        return ["pinproof_cell.suite.check_child"]
    where = ["-c", os.devnull, "--rootdir", os.fspath(directory)]
    quiet = ["-q", "--tb=no", "--no-header", "--no-summary", "-p", "no:cacheprovider"]
    return ["pytest", os.fspath(directory / "test_attention.py"), *where, *quiet]


def _watch(
    process: subprocess.Popen[bytes], candidate: str, suite: Suite, journal: Journal
) -> bool:
    """Wait for the child's end, or for the limit of what it is at; say how far it is."""
    total, told = len(suite.cases), len(journal.ended())
    since, at = time.monotonic(), (len(journal.started()), told)
    first = at[0]
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        now = (len(journal.started()), len(journal.ended()))
        if now[1] // 10 > told // 10 or (now[1] == total > told):
            told = now[1]
            suite.say(f"correctness {candidate} {told}/{total}")
        if process.returncode is not None:
            return False
        if now != at:
            since, at = time.monotonic(), now
        limit = suite.start_limit if at[0] == first else suite.limit
        if time.monotonic() - since > limit:
            return True


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit meanwhile, so that `finally` runs and ends the child."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
