"""Conda packages that an archive keeps, each in a directory that is named by its sha256."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from pinproof.errors import InfrastructureError
from pinproof.evidence.store import sha256
from pinproof.locks.conda import lockfile, packages
from pinproof.locks.conda.lockfile import Package
from pinproof.locks.conda.spec import this_platform

#: Where they lie in an archive.
DIRECTORY = "conda"


def keep(wanted: Iterable[Package], cache: Path, archive: Path) -> int:
    """Put the packages into an archive, and return how many were not there yet.

    `cache` is where an install left them. Raises InfrastructureError where one is not there any
    more, or is not the one of its lock; and where the disk refuses.
    """
    added = 0
    for each in wanted:
        there = packages.place(each, archive / DIRECTORY)
        if there.is_file() and sha256(there) == each.sha256:
            continue
        here = packages.place(each, cache)
        if not here.is_file() or sha256(here) != each.sha256:
            raise InfrastructureError(
                f"{each.file} is not in {cache}, where the cell's install left it",
                remedy="run the cell again: what is missing is fetched, and compared with its lock",
            )
        try:
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here, there)
        except OSError as error:
            raise InfrastructureError(f"{there} cannot be written: {error.strerror}") from None
        added += 1
    return added


def needed(archive: Path) -> dict[Path, tuple[str, tuple[str, ...]]]:
    """Return the sha256 of each package that an archive has to hold, and the cells it is for.

    They are told by the locks beside the cells' pins.
    """
    found: dict[Path, tuple[str, tuple[str, ...]]] = {}
    for lock in sorted(archive.glob("pins/*/*.conda-lock.yml")):
        for each in lockfile.read(lock).of(this_platform()):
            path = packages.place(each, archive / DIRECTORY)
            _, cells = found.get(path, ("", ()))
            found[path] = each.sha256, (*cells, lock.parent.name)
    return found
