"""Executes one step as a child `nox`, and turns what came back into evidence."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pinproof import process, triage
from pinproof.errors import InfrastructureError
from pinproof.evidence import Evidence, Outcome
from pinproof.machine import Machine
from pinproof.plan import Step
from pinproof.process import Finished, signal_name
from pinproof.stage import Stage
from pinproof.store import Store, read_json, write_json

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


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where steps are executed: the store, nox's environments, the machine, the listener."""

    store: Store
    envdir: Path
    machine: Machine
    on_line: Callable[[str, str], None]

    def execute(self, step: Step, spec: SessionSpec, cancel: threading.Event) -> Evidence:
        """Run `spec` for `step` in a child nox and return the evidence. Does not save it.

        Raises InfrastructureError where the store cannot be written.
        """
        scratch = self.store.scratch(step.owner, step.stage)
        stepfile, status = scratch / "step.json", scratch / "status"
        for stale in (status, spec.out):
            if stale is not None:
                stale.unlink(missing_ok=True)
        write_json(stepfile, {**_session(spec), "status": str(status)})
        log = self.store.log_path(step.owner, step.stage)
        log.unlink(missing_ok=True)
        started = now()
        try:
            finished = process.run(
                nox_command(self.envdir, spec.session),
                env={**spec.secrets, **nox_environment(stepfile)},
                timeout=step.timeout,
                log=log,
                on_line=lambda line: self.on_line(step.id, line),
                cancel=cancel,
            )
        except OSError as error:
            raise InfrastructureError(f"cannot start nox for {step.id}: {error}") from None
        data = read_json(spec.out) if spec.out is not None else {}
        outcome, reason = classify(step.stage, finished, _status(status), data)
        return self.evidence(
            step, outcome, reason, data if outcome is Outcome.OK else {}, started, finished.seconds
        )

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


def now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def nox_command(envdir: Path, session: str) -> list[str]:
    """Return the command that runs one session of a step file."""
    options = ["--envdir", str(envdir), "--no-dependencies", "-s", session]
    return [sys.executable, "-m", "nox", "-f", str(NOXFILE), *options]


def nox_environment(stepfile: Path) -> dict[str, str]:
    """Return the environment of the child nox itself; its commands get the spec's."""
    passed = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "XDG_CACHE_HOME", "UV_CACHE_DIR")
    env = {name: os.environ[name] for name in passed if name in os.environ}
    # UV_PYTHON_DOWNLOADS: a cell's Python is one that is here; nox must not fetch another.
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
    if status == 0 and isinstance(data, dict):
        return Outcome.OK, ""
    finding = triage.triage(finished.output, stage)
    if finding is not None and finding.is_machine:
        return Outcome.INFRA, finding.line
    reason = triage.reason(finished.output, stage)
    ended = signal_name(status or 0)
    if ended == "SIGKILL":
        return Outcome.INFRA, "killed (SIGKILL), most likely for want of memory"
    if ended is not None:
        return Outcome.CRASHED, f"{ended}: {reason}"
    if status is None:
        return Outcome.INFRA, f"the environment could not be made: {reason}"
    return Outcome.FAILED, reason
