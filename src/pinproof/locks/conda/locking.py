"""Makes, renews and checks the lock of a conda environment; the old one stays where that fails."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pinproof.errors import ConfigurationError
from pinproof.evidence.store import write_text
from pinproof.locks.conda import lockfile, spec
from pinproof.locks.conda.lockfile import Lock
from pinproof.locks.conda.solve import solve
from pinproof.locks.conda.spec import Environment

_COMMENT = """\
The exact packages of {spec}, made by: pinproof conda lock {name}
Do not edit: change {spec} and make it again. conda-lock and rattler read it too."""


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """What making a lock came to: the ``lock``, its ``path``, a line for all that ``moved``.

    ``is_new`` says that there was none before.
    """

    lock: Lock
    path: Path
    moved: tuple[str, ...] = ()
    is_new: bool = False


def lock_environment(name: str, root: Path, *, at: str, dry_run: bool = False) -> Renewal:
    """Solve the environment called `name` for all its platforms, and write its lock.

    `at` is the time that the lock bears. A lock that would say the same is left untouched, and with
    `dry_run` every one. Raises ConfigurationError where the old lock cannot be read, and
    InfrastructureError, as `solve.solve`; then the old lock stays.
    """
    asked = spec.named(name, root)
    path = root / asked.lock_file
    old = lockfile.read(path, _again(asked)) if os.path.lexists(path) else None
    new = _solved(asked, at)
    if old is not None and lockfile.same(old, new):
        return Renewal(lock=old, path=path)
    if not dry_run:
        write_text(path, new.text(_COMMENT.format(spec=asked.file, name=name)))
    moved = lockfile.moved(old, new) if old else []
    if old is not None and not moved:
        moved = [f"{asked.file} asks for something else, and the same packages answer it"]
    return Renewal(lock=new, path=path, moved=tuple(moved), is_new=old is None)


def load(name: str, root: Path) -> Lock:
    """Return the lock of the environment called `name`.

    Raises ConfigurationError as `read`, and where its specification changed since.
    """
    asked = spec.named(name, root)
    lock = read(asked, root)
    if outdated(asked, lock):
        raise ConfigurationError(
            f"{asked.lock_file} is not the lock of {asked.file}, which changed since",
            remedy=f"pinproof conda lock {name}",
        )
    return lock


def read(asked: Environment, root: Path) -> Lock:
    """Return the lock of `asked`. Raises ConfigurationError for none and a damaged one."""
    path = root / asked.lock_file
    if not path.is_file():
        raise ConfigurationError(
            f"{asked.lock_file} is not there: the conda environment {asked.name} was never locked",
            cause="locks are made where the channels can be reached",
            remedy=f"pinproof conda lock {asked.name}",
        )
    return lockfile.read(path, _again(asked))


def outdated(asked: Environment, lock: Lock) -> list[str]:
    """Return the platforms on which `asked` is not what was locked; none of another's lock."""
    if not lock.is_ours:
        return []
    return [each for each in asked.platforms if lock.hashes.get(each) != asked.content_hash(each)]


def _again(asked: Environment) -> str:
    """Return the next step where a lock cannot be read: nothing writes over it."""
    return (
        f"bring the committed {asked.lock_file} back, or remove it: pinproof conda lock"
        f" {asked.name}"
    )


def _solved(asked: Environment, at: str) -> Lock:
    packages = sorted(each for platform in asked.platforms for each in solve(asked, platform))
    return Lock(
        packages=tuple(packages),
        platforms=asked.platforms,
        channels=asked.channels,
        hashes={platform: asked.content_hash(platform) for platform in asked.platforms},
        sources=(f"../{asked.file}",),
        declared={
            f"virtual-packages-{platform}": " ".join(
                f"{name}={text}" for name, text in asked.virtual_packages(platform).items()
            )
            for platform in asked.platforms
        },
        created=at,
    )
