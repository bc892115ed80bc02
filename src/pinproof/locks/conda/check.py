"""Whether the lock of a conda environment still holds: for its specification and its channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pinproof.errors import ConfigurationError
from pinproof.locks.conda import locking, solve, spec


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a lock stands: it is ``stale`` for these reasons; a new one would have ``moved`` these.

    That something newer was released does not make a lock stale: keeping it out is what it is for.
    """

    stale: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()


def check(name: str, root: Path, at: str) -> Standing:
    """Compare the lock of `name` with its specification, and with what its channels have.

    Raises ConfigurationError where there is no lock or it is damaged, InfrastructureError where a
    channel cannot be read.
    """
    asked = spec.named(name, root)
    lock = locking.read(asked, root)
    changed = [
        f"{asked.file} asks for something else on {platform} than was locked"
        for platform in locking.outdated(asked, lock)
    ]
    if changed:
        return Standing(stale=tuple(changed))
    gone = [
        f"{platform}: {why}"
        for platform in asked.platforms
        for why in solve.gone(asked, root / asked.lock_file, platform)
    ]
    try:
        moved = locking.lock_environment(name, root, at=at, dry_run=True).moved
    except ConfigurationError as error:  # the channels moved on; what is locked holds all the same
        moved = (f"no new lock can be made: {error.what}",)
    return Standing(stale=tuple(gone), moved=moved)
