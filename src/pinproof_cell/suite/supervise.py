"""Run the attention suite in children, and go on after each that crashes or hangs.

The child writes a journal, one line before and one after every check: when it dies, the open line
names the check. What follows runs in a fresh child on the same journal.
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

from pinproof_cell.judge.findings import Finding
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

#: How long a child may take before its first check, in seconds: `import vllm` reads gigabytes.
START_LIMIT = 300.0
#: How long a check may take, in seconds, by device: on a GPU its first launch compiles.
CHECK_LIMIT = {"cpu": 120.0, "cuda": 300.0}
#: After so many dead children the remaining checks do not run: each restart imports torch.
MOST_DEATHS = 20


@dataclass(frozen=True)
class Suite:
    """What to run: the `checks` with these ids, for `target`.

    The children are pytest on the suite in `directory`; without one they are
    `pinproof_cell.suite.check_child`, which needs no pytest.
    """

    directory: Path | None
    checks: Sequence[str]
    target: str
    seed: int = 0
    check_limit: float | None = None
    start_limit: float = START_LIMIT
    most_deaths: int = MOST_DEATHS
    say: Callable[[str], None] = field(default=print)

    @property
    def device(self) -> str:
        """The torch device that the checks run on."""
        return "cpu" if self.target == "cpu" else "cuda"

    @property
    def limit(self) -> float:
        """How long one check may take, in seconds."""
        return CHECK_LIMIT[self.device] if self.check_limit is None else self.check_limit


@dataclass(frozen=True)
class Run:
    """The results of one candidate, a dict per check in the order of the suite.

    ``session`` holds name, version and device; its ``reason`` says why there are no results, if so.
    """

    session: dict[str, Any]
    checks: list[dict[str, Any]]


def supervise(candidate: str, suite: Suite) -> Run:
    """Put every check of `suite` to `candidate`, in as many children as that takes."""
    with tempfile.TemporaryDirectory(prefix="pinproof-") as scratch:
        journal = Journal(Path(scratch) / "journal.jsonl")
        deaths = 0
        while len(journal.lines("end")) < len(suite.checks):
            begun = len(journal.lines("begin"))
            ended = _child(candidate, suite, journal, Path(scratch) / "output.txt")
            sessions = journal.lines("session")
            if sessions and sessions[0]["reason"]:
                break
            deaths += _blame(journal, ended, suite)
            if len(journal.lines("begin")) == begun or deaths == suite.most_deaths:
                _give_up(journal, ended, suite, deaths)
        results = {line["check"]: line for line in journal.lines("end")}
    keys = ("status", "stats", "findings", "infra", "signal", "seconds")
    return Run(
        (sessions or [{}])[0],
        [
            {
                "id": check,
                **{key: results[check][key] for key in keys},
                "reasons": [finding["text"] for finding in results[check]["findings"]],
            }
            for check in suite.checks
            if check in results
        ],
    )


def _blame(journal: Journal, ended: child.Ended, suite: Suite) -> bool:
    """Give the check that was open when the child ended its result; return whether one was."""
    begun = journal.unfinished("check")
    if begun is None:
        return False
    outside = ended.signal in child.OUTSIDE
    status = "HANG" if ended.timed_out else "NOT-RUN" if outside else "CRASH"
    text = f"no answer in {suite.limit:g} s" if ended.timed_out else ended.reason
    finding = Finding("process", status.lower(), text or "the child ended inside this check")
    suite.say(f"correctness {begun['check']}: {status}, {finding.text}")
    _end(journal, begun["check"], status, finding, ended.signal, time.time() - begun["at"])
    return True


def _give_up(journal: Journal, ended: child.Ended, suite: Suite, deaths: int) -> None:
    """Say of the remaining checks that they did not run, and whether the machine is at fault.

    A candidate that ends its process as it is loaded is CRASH in all of them.
    """
    status, infra, signal_name = "NOT-RUN", True, None
    cause = ended.reason or "the suite ran none of them"
    sessions = journal.lines("session")
    text = f"not run: {(sessions and sessions[-1]['reason']) or cause}"
    if deaths == suite.most_deaths:
        infra, text = False, f"not run: {deaths} checks before it ended their process"
    elif len(journal.lines("loading")) > len(sessions):
        text = f"{cause} while the candidate was loaded"
        if not ended.timed_out and ended.signal not in child.OUTSIDE:
            status, infra, signal_name = "CRASH", False, ended.signal
    suite.say(f"correctness: giving up, {text}\n{ended.output[-2000:]}")
    done = {line["check"] for line in journal.lines("end")}
    for check in suite.checks:
        if check not in done:
            journal.add("begin", check=check)
            finding = Finding("process", status.lower(), text)
            _end(journal, check, status, finding, signal_name, infra=infra)


def _end(
    journal: Journal,
    check: str,
    status: str,
    finding: Finding,
    signal_name: str | None,
    seconds: float = 0.0,
    *,
    infra: bool | None = None,
) -> None:
    journal.add(
        "end",
        check=check,
        status=status,
        stats={},
        findings=[finding.document()],
        infra=status == "NOT-RUN" if infra is None else infra,
        signal=signal_name,
        seconds=round(seconds, 3),
    )


def _child(candidate: str, suite: Suite, journal: Journal, output: Path) -> child.Ended:
    """Run one child to its end; kill it where its first check or any check takes too long."""
    chosen = output.with_name("checks.json")
    chosen.write_text(json.dumps(list(suite.checks)), encoding="utf-8")
    argv = [
        *(sys.executable, "-m", *_program(suite.directory)),
        *("--candidate", candidate, "--device", suite.device, "--target", suite.target),
        *("--seed", str(suite.seed), "--journal", os.fspath(journal.path)),
        *("--checks", os.fspath(chosen)),
    ]
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
    """Wait for the child's end, or for the limit of the check it is at; say how far it is."""
    total, told = len(suite.checks), len(journal.lines("end"))
    since, at = time.monotonic(), (len(journal.lines("begin")), told)
    now, first, size = at, at[0], journal.size()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        if journal.size() != size:
            size = journal.size()
            now = (len(journal.lines("begin")), len(journal.lines("end")))
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
