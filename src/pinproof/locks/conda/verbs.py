"""What the verb `conda` does: lock environments, check their locks, install one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pinproof.errors import ConfigurationError, ExitCode, did_you_mean
from pinproof.locks.conda import locking, spec
from pinproof.locks.conda.install import install
from pinproof.locks.conda.locking import Renewal

Say = Callable[[str], None]

ACTIONS = ("lock", "check", "install")


def conda(
    action: str,
    names: Sequence[str],
    *,
    root: Path,
    store: Path,
    at: str,
    say: Say,
    into: Path | None = None,
    offline: bool = False,
    executable: str = "",
) -> ExitCode:
    """Do one of `ACTIONS` for the environments called `names`, all of them where none is named.

    Raises ConfigurationError for any other word, and what the action raises.
    """
    match action:
        case "lock":
            for name in _named(names, root):
                _told(name, locking.lock_environment(name, root, at=at), say)
            return ExitCode.OK
        case "check":
            states = [_checked(name, root, at, say) for name in _named(names, root)]
            return ExitCode.OK if all(states) else ExitCode.STALE
        case "install":
            if len(names) != 1 or into is None:
                raise ConfigurationError(
                    "conda install takes one environment and where to",
                    remedy="pinproof conda install cuda-13.0 --into DIR",
                )
            say(install(names[0], root, into, store, offline=offline, executable=executable))
            return ExitCode.OK
    raise ConfigurationError(
        f"conda cannot {action!r}.{did_you_mean(action, ACTIONS)}",
        remedy=f"use one of: {', '.join(ACTIONS)}",
    )


def _named(names: Sequence[str], root: Path) -> Sequence[str]:
    chosen = names or spec.names(root)
    if not chosen:
        raise ConfigurationError(f"there is no specification in {spec.SPECS}/")
    return chosen


def _told(name: str, renewal: Renewal, say: Say) -> None:
    if not renewal.is_new and not renewal.moved:
        say(f"{name}: nothing moved since {renewal.lock.created or 'it was locked'}")
        return
    count = len(renewal.lock.packages)
    say(f"{name}: {count} packages locked in {renewal.path}")
    for line in renewal.moved:
        say(f"  {line}")


def _checked(name: str, root: Path, at: str, say: Say) -> bool:
    """Say if the lock is the one that would be made now."""
    locking.load(name, root)
    renewal = locking.lock_environment(name, root, at=at, dry_run=True)
    if not renewal.moved:
        say(f"{name}: up to date")
        return True
    say(f"{name}: stale, {len(renewal.moved)} moved")
    for line in renewal.moved:
        say(f"  {line}")
    return False
