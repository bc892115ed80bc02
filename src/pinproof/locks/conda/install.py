"""Installs the lock of a conda environment, or keeps its packages for another machine."""

from __future__ import annotations

from pathlib import Path

from pinproof.errors import ConfigurationError
from pinproof.evidence.store import Store
from pinproof.locks.conda import child, kept, locking, spec


def install(
    name: str, root: Path, into: Path, store: Path, *, offline: bool, executable: str = ""
) -> str:
    """Install the lock of `name` into the directory `into`, and return what was done.

    With `executable`, such as micromamba, conda-lock installs by it; else rattler does.
    Raises ConfigurationError and InfrastructureError.
    """
    digest = locking.load(name, root).digest(spec.this_platform())
    lock, prefix = root / spec.lock_file(name), into.resolve()
    words = [str(lock), str(prefix), str(Store(store).conda), *(["--offline"] if offline else [])]
    words += ["--digest", digest]
    if executable:
        words += ["--with", executable]
    return child.ask("install", *words)


def fetch(name: str, root: Path, into: Path, platform: str) -> str:
    """Put the packages of the lock of `name` into an archive, as `kept.keep` lays them out.

    Returns what was done. Raises ConfigurationError and InfrastructureError.
    """
    lock = locking.load(name, root)
    if not lock.of(platform):
        raise ConfigurationError(f"{spec.lock_file(name)} holds nothing for {platform}")
    words = (root / spec.lock_file(name), into / kept.DIRECTORY, platform)
    return child.ask("fetch", *map(str, words))
