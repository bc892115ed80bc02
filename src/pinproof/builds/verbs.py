"""What the verbs `build` and `cache` do."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pinproof.builds import make, source, toolkit
from pinproof.builds.build import Build, Patch
from pinproof.builds.cache import SCHEMA, Cache, Pruned, Record
from pinproof.builds.project import knobs, reads_torch
from pinproof.builds.source import Kind
from pinproof.errors import ConfigurationError, ResolveError, did_you_mean
from pinproof.evidence.store import read_json
from pinproof.locks import solver
from pinproof.locks.installer import Installer
from pinproof.run import environment
from pinproof.run.machine import this_machine

Say = Callable[[str], None]

ACTIONS = ("list", "verify", "prune")


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Raise ConfigurationError in the place of a ResolveError that an answer is the cause of.

    A matrix judges a combination by that; who names a source by hand has named a wrong one.
    """
    try:
        yield
    except ResolveError as error:
        if not error.conflict:
            raise
        raise ConfigurationError(
            error.what,
            cause=error.cause,
            remedy=error.remedy or "look at the version, or name a repository: git+https://...@TAG",
        ) from None


def described(
    project: str,
    text: str,
    *,
    arch: str,
    profile: str,
    python: Path,
    cuda: str,
    without: Sequence[str] = (),
    patches: Sequence[Path] = (),
    env: Sequence[str] = (),
    attention: str = "",
    installer: Installer,
) -> Build:
    """Return the build that a user describes by hand, against the torch that `python` has.

    Raises ConfigurationError for what cannot be built, ResolveError for an unknown git reference
    or release.
    """
    archs = arch.replace("sm_", "")
    knobs(project, archs, profile, without)  # a wrong word is told before anything is looked at
    found = environment.look(python)
    torch = found.packages.get("torch", "")
    if not torch:
        raise ConfigurationError(
            f"{python} has no torch to build against", remedy="name another with --python EXE"
        )
    machine = this_machine()
    origin = source.describe(project, text)
    if origin.kind is Kind.RELEASE:
        asked = f"{project}=={origin.place}"
        archive = solver.archive(asked, installer, python=found.python)
        origin = replace(origin, identity=archive.sha256)
    return Build(
        source=origin,
        torch=torch if reads_torch(origin) else "",
        cuda=cuda,
        archs=archs,
        python=found.python,
        profile=profile,
        without=tuple(without),
        env=tuple(_variable(each) for each in env),
        patches=tuple(Patch.read(each) for each in patches),
        attention=source.describe(source.ATTENTION, attention) if attention else None,
        compiler=machine.gcc,
        platform=machine.platform,
    )


def ordered(path: Path) -> Build:
    """Return the build that a file holds. Raises ConfigurationError where it holds none."""
    try:
        return Build.from_json(read_json(path))
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(f"{path} holds no build") from None


def build(
    wanted: Build,
    store: Path,
    python: Path,
    say: Say,
    *,
    installer: Installer,
    jobs: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Build it, or take it from the cache of `store`; say what the wheel holds.

    Returns that text, and its record with the place of the wheel. Raises what `make.make` raises.
    """
    if wanted.source.kind is Kind.WHEEL:
        raise ConfigurationError(
            f"{wanted.source} is built already", remedy="look into it: pinproof audit WHEEL"
        )
    env = environment.isolated_env(os.environ, {})
    # Not resolved: the python of a virtual environment is a link to one that has no torch.
    own = python.absolute().parents[1] / "cuda"
    home = make.toolkit_for(wanted, python.absolute(), own, os.environ)
    toolkit.check(home, environment.look(python).packages)
    # By hand the toolkit is the one that is here: its version decides what the wheel holds.
    wanted = replace(wanted, cuda=wanted.cuda or home.cuda)
    tools = os.pathsep.join((str(python.absolute().parent), env["PATH"]))
    site = make.Site(
        python=python.absolute(),
        toolkit=home,
        env={**env, "PATH": tools},
        installer=installer,
        jobs=jobs,
    )
    held = Cache(store / "builds")
    made = make.make(wanted, held, site, say)
    path = str(held.wheel_path(made))
    held_code = [f"{each['status']:<11} {each['file']}  {_units(each)}" for each in made.libraries]
    return "\n".join([path, _line(made), *held_code]), {**made.to_json(), "path": path}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a look at the cache came to, for people and as JSON; `well` is if all is in order."""

    lines: tuple[str, ...]
    document: Mapping[str, Any]
    well: bool = True


def cache(action: str, store: Path, days: float) -> Told:
    """Do one of `ACTIONS`. Raises ConfigurationError for any other word."""
    if not 0 <= days < math.inf:
        raise ConfigurationError(f"--days {days:g} must be 0 or more")
    held = Cache(store / "builds")
    match action:
        case "list" | "verify":
            return _looked(held, verify=action == "verify")
        case "prune":
            pruned = held.prune(days=days)
            return Told(lines=(_told(pruned),), document={"schema": SCHEMA, **asdict(pruned)})
    raise ConfigurationError(
        f"cache cannot {action!r}.{did_you_mean(action, ACTIONS)}",
        remedy=f"use one of: {', '.join(ACTIONS)}",
    )


def _looked(held: Cache, *, verify: bool) -> Told:
    lines, wheels = [], []
    for record in held.records():
        wheel = record.to_json()
        line = _line(record)
        if verify:
            wheel["whole"] = held.find(record.key) is not None
            line = f"{'whole' if wheel['whole'] else 'quarantined':<11} {line}"
        lines.append(line)
        wheels.append(wheel)
    return Told(
        lines=tuple(lines) or ("no wheel was built",),
        document={"schema": SCHEMA, "wheels": wheels},
        well=all(wheel.get("whole", True) for wheel in wheels),
    )


def _line(record: Record) -> str:
    what = record.inputs
    torch = f"torch {what['torch']}" if what["torch"] else "any torch"
    return (
        f"{record.key[:8]} {record.wheel}  {what['source']}, {torch}, CUDA {record.tools['nvcc']},"
        f" for {what['archs']}, {record.seconds:.0f} s on {record.built[:10]}"
    )


def _told(pruned: Pruned) -> str:
    return (
        f"removed {pruned.wheels} wheels, {pruned.trees} trees of builds and {pruned.quarantined}"
        f" files in quarantine: {pruned.size / 1e6:.0f} MB"
    )


def _units(each: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in each["units"].items())


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigurationError(f"{text!r} is no NAME=VALUE")
    return name, value
