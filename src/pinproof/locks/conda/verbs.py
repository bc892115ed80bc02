"""What the verb `conda` does: lock environments, check their locks, install one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pinproof.errors import ConfigurationError, ExitCode, did_you_mean
from pinproof.locks.conda import check, locking, spec
from pinproof.locks.conda.install import install

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
        case "lock" | "check":
            return ExitCode(survey(action, names, root=root, at=at, say=say)["exit_code"])
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


def survey(action: str, names: Sequence[str], *, root: Path, at: str, say: Say) -> dict[str, Any]:
    """Lock or check environments, tell `say`, and return what came of it as a document.

    Raises as `conda`.
    """
    do = _checked if action == "check" else _locked
    found = [do(name, root, at, say) for name in _named(names, root)]
    stale = any(each["state"] == "stale" for each in found)
    code = ExitCode.STALE if stale else ExitCode.OK
    return {"schema": 1, "environments": found, "exit_code": int(code)}


def _named(names: Sequence[str], root: Path) -> Sequence[str]:
    chosen = names or spec.names(root)
    if not chosen:
        raise ConfigurationError(f"there is no specification in {spec.SPECS}/")
    return chosen


def _locked(name: str, root: Path, at: str, say: Say) -> dict[str, Any]:
    renewal = locking.lock_environment(name, root, at=at)
    told = {"environment": name, "file": spec.lock_file(name), "moved": list(renewal.moved)}
    if renewal.is_new or renewal.moved:
        say(f"{name}: {len(renewal.lock.packages)} packages locked in {renewal.path}")
        _list(renewal.moved, say)
        return {**told, "state": "locked"}
    say(f"{name}: nothing moved since {renewal.lock.created or 'it was locked'}")
    return {**told, "state": "unchanged"}


def _checked(name: str, root: Path, at: str, say: Say) -> dict[str, Any]:
    found = check.check(name, root, at)
    state = "stale" if found.stale else "holds"
    say(f"{name}: {state}")
    _list(found.stale, say)
    if found.moved:
        say(f"  a new lock would differ: {len(found.moved)} moved")
        _list(found.moved, say)
    stale, moved = list(found.stale), list(found.moved)
    told = {"environment": name, "file": spec.lock_file(name)}
    return {**told, "state": state, "stale": stale, "moved": moved}


def _list(lines: Sequence[str], say: Say) -> None:
    for line in lines:
        say(f"  {line}")
