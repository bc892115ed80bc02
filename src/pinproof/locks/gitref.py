"""Moving git references, made into commits that stay."""

from __future__ import annotations

import re
from enum import Enum

from pinproof.errors import ResolveError
from pinproof.locks.redact import redact
from pinproof.matrix.axis import Value
from pinproof.run import process

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Reach(Enum):
    """Which repositories may be asked: any, those of this machine (no network), or none."""

    ANY = "any"
    HERE = "those of this machine"
    NONE = "none"

    def has(self, value: Value) -> bool:
        """Say if the repository of `value` may be asked."""
        return self is Reach.ANY or (self is Reach.HERE and value.repository.startswith("file:"))


def commit(value: Value, reach: Reach = Reach.ANY, *, timeout: float = 120) -> str:
    """Return the full commit that the git value `value` names now.

    A full commit is returned as it is, without asking. Raises ResolveError where the repository
    has no such reference (a conflict), cannot be reached, or may not be asked.
    """
    if _COMMIT.fullmatch(value.ref):
        return value.ref
    if not reach.has(value):
        raise ResolveError(
            f"nothing at hand says which commit {value.axis} {value.text} is",
            conflict=False,
            cause="no network is used, and neither a lock nor an earlier run says it",
            remedy="run the cell, or lock its matrix, where there is a network: nox -s lock",
        )
    argv = ["git", "ls-remote", "--exit-code", value.repository, value.ref, f"{value.ref}^{{}}"]
    # Without a terminal git must not ask for a password, it must fail.
    env = process.inherited(GIT_TERMINAL_PROMPT="0")
    try:
        done = process.run(argv, env=env, timeout=timeout)
    except OSError as error:
        raise ResolveError(f"git cannot be started: {error}", conflict=False) from None
    found = [line.split()[0] for line in done.output.splitlines() if _COMMIT.match(line)]
    if done.ok and found:
        return found[-1]  # of an annotated tag the last line is what it points to
    if done.returncode == 2 and not done.timed_out:
        raise ResolveError(
            f"{value.repository} has no reference {value.ref}",
            conflict=True,
            remedy="name a branch, a tag or a full commit of that repository",
        )
    raise ResolveError(
        f"{value.axis} {value.text} could not be resolved to a commit",
        conflict=False,
        cause=redact(done.output.strip().rpartition("\n")[2])[:300] or "git did not answer",
        remedy="check the network, or name the full commit",
    )
