"""Every error a user can meet: what happened, the likely cause, the next step, an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a run ended as. Nox itself ends with 1 where a session failed."""

    OK = 0
    UNSAFE = 1
    CONFIGURATION = 2
    NOTHING_RAN = 3
    INFRASTRUCTURE = 4
    STALE = 5
    INTERRUPTED = 130


class PinproofError(Exception):
    """A failure with a message for a person; never shown as a traceback.

    ``what`` says what happened, ``cause`` the likely reason, ``remedy`` the next step.
    """

    exit_code = ExitCode.INFRASTRUCTURE

    def __init__(self, what: str, *, cause: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.cause:
            lines.append(f"  likely cause: {self.cause}")
        if self.remedy:
            lines.append(f"  next step: {self.remedy}")
        return "\n".join(lines)


class ConfigurationError(PinproofError):
    """The matrix, a rule, a selector or a command line option is wrong."""

    exit_code = ExitCode.CONFIGURATION


class UnsafePinError(PinproofError):
    """Pins were asked for a cell that is not SAFE."""

    exit_code = ExitCode.UNSAFE


class NothingRanError(PinproofError):
    """No cell was left to run, or none produced evidence."""

    exit_code = ExitCode.NOTHING_RAN


class InfrastructureError(PinproofError):
    """The machine, the network or the disk failed; says nothing about a combination."""

    exit_code = ExitCode.INFRASTRUCTURE


class ResolveError(PinproofError):
    """A cell's requirements could not be turned into a lock.

    ``conflict`` is True where the index answered and no set of versions fits: that is a fact
    about the combination. Otherwise the index or the disk failed, and nothing is known.
    """

    def __init__(self, what: str, *, conflict: bool, cause: str = "", remedy: str = "") -> None:
        super().__init__(what, cause=cause, remedy=remedy)
        self.conflict = conflict


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word nearest to `word`, or ``""``."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
