"""Run the attention suite in children, and go on after each that crashes or hangs.

The child writes a journal, one line before and one after every check: when it dies, the open line
names the check. What follows runs in a fresh child on the same journal. Where there are cores for
it, several children share the checks: most of the time goes into compiling them, on one core each.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
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
#: So many children at most share the checks, and neighbours, which compile alike, stay together.
MOST_LANES, NEIGHBOURS = 8, 4


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


def lanes() -> int:
    """Return how many children share the checks of a candidate."""
    return max(1, min(MOST_LANES, len(os.sched_getaffinity(0)) // 2))


def supervise(candidate: str, suite: Suite) -> Run:
    """Put every check of `suite` to `candidate`, in as many children as that takes."""
    shares: list[list[str]] = [[] for _ in range(lanes())]
    for place, check in enumerate(suite.checks):
        shares[place // NEIGHBOURS % len(shares)].append(check)
    progress = _Progress(candidate, len(suite.checks), suite.say)
    with (
        tempfile.TemporaryDirectory(prefix="pinproof-") as scratch,
        ThreadPoolExecutor(len(shares)) as pool,
        _terminable() as stop,  # innermost: the pool waits for lanes, which must know first
    ):
        running = [
            pool.submit(
                _lane,
                candidate,
                replace(suite, checks=share),
                Journal(Path(scratch) / str(number) / "journal.jsonl"),
                progress,
                stop,
            )
            for number, share in enumerate(shares)
            if share
        ]
        lines = [line for lane in running for line in lane.result()]
        # Side by side they may want more memory than there is: what that kept from running is
        # asked again with nothing beside it.
        crowded = [line["check"] for line in lines if line["kind"] == "end" and line["infra"]]
        if crowded and len(running) > 1 and not stop.is_set():
            alone = replace(suite, checks=crowded)
            lines += _lane(
                candidate, alone, Journal(Path(scratch) / "alone" / "journal.jsonl"), progress, stop
            )
        if stop.is_set():
            raise KeyboardInterrupt  # another thread's: half of the checks are no result
    sessions = [line for line in lines if line["kind"] == "session"]
    results = {line["check"]: line for line in lines if line["kind"] == "end"}
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


def _lane(
    candidate: str, suite: Suite, journal: Journal, progress: _Progress, stop: threading.Event
) -> list[dict[str, Any]]:
    """Put the checks of one share, in children one after the other; returns the journal."""
    journal.path.parent.mkdir()
    deaths = 0
    while len(journal.lines("end")) < len(suite.checks) and not stop.is_set():
        begun = len(journal.lines("begin"))
        ended = _child(candidate, suite, journal, progress, stop)
        sessions = journal.lines("session")
        if stop.is_set() or (sessions and sessions[0]["reason"]):
            break
        known = len(journal.lines("end"))
        deaths += _blame(journal, ended, suite)
        if len(journal.lines("begin")) == begun or deaths == suite.most_deaths:
            _give_up(journal, ended, suite, deaths)
        # What no child ended, we did.
        progress.add(len(journal.lines("end")) - known)
    return journal.lines()


class _Progress:
    """Says how many checks of all lanes have ended, ten at a time."""

    def __init__(self, candidate: str, total: int, say: Callable[[str], None]) -> None:
        self._candidate, self._total, self._say = candidate, total, say
        self._lock = threading.Lock()
        self._done = 0

    def add(self, ended: int) -> None:
        """Count `ended` more checks."""
        with self._lock:
            before, self._done = self._done, self._done + ended
            if ended and (self._done // 10 > before // 10 or self._done == self._total):
                self._say(f"correctness {self._candidate} {self._done}/{self._total}")


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


def _child(
    candidate: str, suite: Suite, journal: Journal, progress: _Progress, stop: threading.Event
) -> child.Ended:
    """Run one child to its end; kill it where its first check or any check takes too long."""
    output, chosen = journal.path.with_name("output.txt"), journal.path.with_name("checks.json")
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
    with output.open("w+b") as sink:
        process = subprocess.Popen(
            argv,
            env=child.environment(suite.target, extra),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            timed_out = _watch(process, suite, journal, progress, stop)
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
    process: subprocess.Popen[bytes],
    suite: Suite,
    journal: Journal,
    progress: _Progress,
    stop: threading.Event,
) -> bool:
    """Wait for the child's end, or for the limit of the check it is at; count what it ends."""
    since, at = time.monotonic(), (len(journal.lines("begin")), len(journal.lines("end")))
    now, first, size = at, at[0], journal.size()
    while not stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        if journal.size() != size:
            size = journal.size()
            now = (len(journal.lines("begin")), len(journal.lines("end")))
        if now != at:
            progress.add(now[1] - at[1])
            since, at = time.monotonic(), now
        if process.returncode is not None:
            return False
        limit = suite.start_limit if at[0] == first else suite.limit
        if time.monotonic() - since > limit:
            return True
    return False


@contextlib.contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Yield what tells the lanes to stop: SIGTERM sets it, and then ends us as SystemExit.

    So does Ctrl-C; in another thread than the main one it is that of `child.threads`.
    """
    stop = threading.Event()

    def leave(number: int, frame: object) -> None:
        stop.set()
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield child.interrupted  # signals belong to the main thread
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield stop
    except BaseException:
        stop.set()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
