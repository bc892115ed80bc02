"""Asks the child that has rattler; its verbs are those of `pinproof.locks.conda.worker`."""

from __future__ import annotations

import sys
from pathlib import Path

from pinproof.errors import ConfigurationError, ExitCode, InfrastructureError
from pinproof.locks.redact import redact
from pinproof.run import process

WORKER = "pinproof.locks.conda.worker"
SOURCES = Path(__file__).parents[3]


def command(*words: str) -> list[str]:
    """Return the command of the child; it needs ``environment()``."""
    return [sys.executable, "-m", WORKER, *words]


def environment() -> dict[str, str]:
    """Return the variables of the child: the caller's, since rattler's settings are there."""
    return process.inherited(PYTHONPATH=str(SOURCES))


def ask(*words: str) -> str:
    """Run the child, and return what it said.

    Raises ConfigurationError or InfrastructureError, in its words.
    """
    done = process.run(command(*words), env=environment())
    told = redact(done.output).strip()
    if done.ok:
        return told
    if done.returncode not in (ExitCode.CONFIGURATION, ExitCode.INFRASTRUCTURE):
        raise InfrastructureError(
            f"the child that has rattler ended with status {done.returncode}",
            cause=told.rpartition("\n")[2][:200],
        )
    what = told.removeprefix("pinproof: ") or "the child that has rattler said nothing"
    if done.returncode == ExitCode.CONFIGURATION:
        raise ConfigurationError(what)
    raise InfrastructureError(what)
