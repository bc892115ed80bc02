"""Executes steps as sessions of a child `nox`, and turns what came back into evidence."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinproof.clock import now
from pinproof.errors import ExitCode, InfrastructureError
from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.evidence.store import Store, disk_error, read_json, write_text
from pinproof.judge import triage
from pinproof.plan.plan import Step
from pinproof.plan.stage import Stage
from pinproof.run import process
from pinproof.run.machine import Machine
from pinproof.run.process import Finished, signal_name

NOXFILE = Path(__file__).with_name("step_noxfile.py")


@dataclass(frozen=True, kw_only=True)
class SessionSpec:
    """What a step runs: `commands` in the environment of the nox session `session`.

    ``python``, ``venv_backend`` and ``venv_params`` are nox's own; ``env`` and ``secrets`` are
    the whole environment of the commands, of which secrets (the addresses of indexes may hold
    passwords) are never written to a file. ``out`` is the JSON file that the last command leaves,
    None for a step that measures nothing.
    """

    session: str
    python: str
    venv_backend: str
    venv_params: tuple[str, ...] = ()
    commands: tuple[Sequence[str], ...]
    env: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    out: Path | None = None


Begin = Callable[[Step], None]
End = Callable[[Step, Evidence], None]

_BEGINS = re.compile(r"nox > Running session (\S+)$")
_ENDS = re.compile(r"nox > Session (\S+) (?:was successful|failed|aborted)\b")

#: How uv says that an index has nothing to satisfy a pin with.
_VANISHED = "No solution found when resolving dependencies"


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where steps are executed: the store, nox's environments, the machine, the listener."""

    store: Store
    envdir: Path
    machine: Machine
    on_line: Callable[[str, str], None]

    def execute(
        self,
        lane: Sequence[tuple[Step, SessionSpec]],
        cancel: threading.Event,
        begin: Begin,
        end: End,
    ) -> None:
        """Run the steps of `lane` one after the other, as sessions of one child nox.

        Calls `begin` and `end` for each of them, from another thread. A step that hangs ends its
        child, and the steps behind it go on in another. Saves nothing.

        Raises InfrastructureError where the store cannot be written or nox cannot be started.
        """
        left = list(lane)
        while left and not cancel.is_set():
            tape = _Tape(self, left, cancel, begin, end)
            output = self._nox(left, tape)
            tape.close(output)
            left = tape.left
        for step, _ in left:
            self._untouched(step, begin, end)

    def _nox(self, lane: Sequence[tuple[Step, SessionSpec]], tape: _Tape) -> Finished:
        """Run one child nox over the sessions of `lane`."""
        secrets: dict[str, str] = {}
        sessions = []
        for step, spec in lane:
            self._clear(step, spec)
            secrets |= spec.secrets
            sessions.append({**_session(spec), "status": str(self.status_path(step))})
        first = lane[0][0]
        stepfile = self.store.scratch(first.owner, first.stage) / "step.json"
        try:
            stepfile.write_text(json.dumps({"sessions": sessions}), encoding="utf-8")
            return process.run(
                nox_command(self.envdir),
                env={**secrets, **nox_environment(stepfile)},
                on_line=tape.hear,
                cancel=tape,
            )
        except OSError as error:
            if tape.heard:  # it did start: this is what somebody who listens has raised
                raise
            raise InfrastructureError(f"cannot start nox for {first.id}: {error}") from None

    def _clear(self, step: Step, spec: SessionSpec) -> None:
        """Remove what an earlier run of `step` left, so that nothing of it is taken for this one's.

        Raises InfrastructureError where the disk refuses.
        """
        status, log = self.status_path(step), self.store.log_path(step.owner, step.stage)
        for stale in filter(None, (status, log, spec.out)):
            try:
                stale.unlink(missing_ok=True)
                stale.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(stale, error) from None

    def _untouched(self, step: Step, begin: Begin, end: End) -> None:
        begin(step)
        end(step, self.evidence(step, Outcome.CANCELLED, "interrupted", {}, now(), 0.0))

    def status_path(self, step: Step) -> Path:
        """Return the file in which a session leaves the exit status of its last command."""
        return self.store.scratch(step.owner, step.stage) / "status"

    def evidence(
        self,
        step: Step,
        outcome: Outcome,
        reason: str,
        data: Mapping[str, Any],
        started: str,
        seconds: float,
    ) -> Evidence:
        """Return the record of what `step` did on this machine."""
        log = self.store.log_path(step.owner, step.stage)
        return Evidence(
            cell=step.owner,
            stage=step.stage,
            digest=step.digest,
            outcome=outcome,
            reason=reason,
            data=data,
            inputs=step.inputs,
            machine=self.machine.facts(),
            log=str(log.relative_to(self.store.root)) if log.is_file() else "",
            started=started,
            seconds=round(seconds, 3),
        )


class _Tape:
    """Cuts what one nox says into its sessions: whose turn it is, what it said, how it ended.

    Stands in for the event that ends the child: it is set when the run is cancelled, and when
    the session whose turn it is has used up its time.
    """

    def __init__(
        self,
        executor: Executor,
        lane: Sequence[tuple[Step, SessionSpec]],
        cancel: threading.Event,
        begin: Begin,
        end: End,
    ) -> None:
        self.left = list(lane)
        self.heard = False
        self._executor = executor
        self._cancel = cancel
        self._begin = begin
        self._end = end
        self._now: tuple[Step, SessionSpec] | None = None
        self._lines: list[str] = []
        self._started, self._began = "", 0.0

    def is_set(self) -> bool:
        """Say if the child has to end."""
        return self._cancel.is_set() or self._late()

    def _late(self) -> bool:
        turn = self._now
        return turn is not None and time.monotonic() - self._began > turn[0].timeout

    def hear(self, line: str) -> None:
        """Take a line of the child's output."""
        self.heard = True
        match = _BEGINS.match(line)
        if match and self.left and match[1] == self.left[0][1].session:
            self._turn()
        if self._now is None:
            return
        step = self._now[0]
        self._lines.append(line)
        self._executor.on_line(step.id, line)
        # A program in the cell may print the same words: what counts is the status file.
        if _ENDS.match(line) and self._executor.status_path(step).is_file():
            self._conclude(timed_out=False, cancelled=False)

    def close(self, finished: Finished) -> None:
        """Conclude what the child left open when it ended."""
        if self._now is None and self.left and not self._cancel.is_set():
            # It did not come as far as a session: its words belong to the first.
            self._turn()
            self._lines = finished.output.splitlines()
        if self._now is not None:
            cancelled = self._cancel.is_set()
            self._conclude(timed_out=self._late() and not cancelled, cancelled=cancelled)

    def _turn(self) -> None:
        self._now = self.left.pop(0)
        self._lines, self._started, self._began = [], now(), time.monotonic()
        self._begin(self._now[0])

    def _conclude(self, *, timed_out: bool, cancelled: bool) -> None:
        assert self._now is not None  # noqa: S101 - callers have looked
        step, spec = self._now
        seconds = time.monotonic() - self._began
        self._now = None
        text = "".join(f"{line}\n" for line in self._lines)
        write_text(self._executor.store.log_path(step.owner, step.stage), text, durable=False)
        data = read_json(spec.out) if spec.out is not None else {}
        finished = Finished(
            returncode=0, seconds=seconds, output=text, timed_out=timed_out, cancelled=cancelled
        )
        status = _status(self._executor.status_path(step))
        outcome, reason = classify(step.stage, finished, status, data)
        found = data if outcome is Outcome.OK else {}
        self._end(
            step, self._executor.evidence(step, outcome, reason, found, self._started, seconds)
        )


def nox_command(envdir: Path) -> list[str]:
    """Return the command that runs the sessions of a step file, in its order."""
    return [sys.executable, "-m", "nox", "-f", str(NOXFILE), "--envdir", str(envdir)]


def nox_environment(stepfile: Path) -> dict[str, str]:
    """Return the environment of the child nox itself; its commands get the spec's."""
    passed = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "XDG_CACHE_HOME", "UV_CACHE_DIR")
    env = {name: os.environ[name] for name in passed if name in os.environ}
    return {**env, "PINPROOF_STEP": str(stepfile), "NO_COLOR": "1", "PYTHONUTF8": "1"}


def _session(spec: SessionSpec) -> dict[str, Any]:
    return {
        "session": spec.session,
        "python": spec.python,
        "venv_backend": spec.venv_backend,
        "venv_params": list(spec.venv_params),
        "commands": [list(command) for command in spec.commands],
        "env": dict(spec.env),
        "secrets": sorted(spec.secrets),
    }


def _is_whole(data: Any, stage: Stage) -> bool:
    """Say if `data` is what that stage of a cell leaves."""
    return isinstance(data, dict) and data.get("schema") == 1 and data.get("stage") == stage


def _status(path: Path) -> int | None:
    """Return the exit status that the session wrote, None where it did not come that far."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def classify(
    stage: Stage, finished: Finished, status: int | None, data: Any
) -> tuple[Outcome, str]:
    """Say how a step ended, and in one line why.

    A full disk, a lost network or an out-of-memory kill speaks of the machine (INFRA), never of
    the combination.
    """
    if finished.cancelled:
        return Outcome.CANCELLED, "interrupted"
    if finished.timed_out:
        return Outcome.TIMEOUT, f"no end after {finished.seconds:.0f} s"
    if status == 0 and (not stage.measures or _is_whole(data, stage)):
        return Outcome.OK, ""
    finding = triage.triage(finished.output, stage)
    if finding is not None and finding.is_machine:
        return Outcome.INFRA, f"{finding.line} [{finding.failure.id}]"
    reason = triage.reason(finished.output, stage)
    if stage is Stage.INSTALL and _VANISHED in finished.output:
        # The lock was made of files that were there: what lost them is no fault of theirs.
        return Outcome.INFRA, f"a file of the lock is nowhere to be found any more: {reason}"
    if status == ExitCode.INFRASTRUCTURE and stage in (Stage.BUILD, Stage.INSTALL):
        return Outcome.INFRA, reason
    ended = signal_name(status or 0)
    if ended == "SIGKILL":
        return Outcome.INFRA, "killed (SIGKILL), most likely for want of memory"
    if ended is not None:
        return Outcome.CRASHED, f"{ended}: {reason}"
    if status is None:
        return Outcome.INFRA, f"the environment could not be made: {reason}"
    return Outcome.FAILED, reason
