"""The conda back end: conda packages from a lock below, the wheels of the cell on top.

Rattler fills the directory before nox looks at it; nox sees ``conda-meta`` there and uses it as an
environment of its own ``rattler`` back end, which would else solve on this machine's terms.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from pinproof.errors import ConfigurationError
from pinproof.evidence.store import Store, read_json
from pinproof.locks.conda import child, kept, locking, spec
from pinproof.locks.conda.lockfile import Lock as CondaLock
from pinproof.locks.conda.spec import this_platform
from pinproof.locks.installer import Installer
from pinproof.locks.lock import Lock
from pinproof.matrix.cell import Cell
from pinproof.options import root
from pinproof.run import integrity
from pinproof.run.environment import Interpreter, pip
from pinproof.run.integrity import Change, Row

#: Inside an environment: how the files of its conda packages looked when they were last compared.
LOOKS = "pinproof-conda-files.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conda:
    """An environment of locked conda packages, with the wheels of a cell on top.

    ``environment`` is its name in envs/, ``path`` its lock file, ``packages`` the directory in
    which conda packages are kept.
    """

    environment: str
    lock: CondaLock
    path: Path
    packages: Path
    name: str = "conda"
    nox: str = "rattler"
    # Nox would solve by itself for a directory that is not there yet.
    nox_fills: str = "none"
    params: tuple[str, ...] = ()

    @property
    def contents(self) -> str:
        """The digest of the conda packages."""
        return self.lock.digest(this_platform())

    @property
    def has_nvcc(self) -> bool:
        """True where the toolkit of a build comes from the environment itself."""
        return bool(self.lock.version("cuda-nvcc", this_platform()))

    def system(self) -> Interpreter | None:
        """Return None: every Python package under test is a wheel."""
        return None

    def default(self, cell: Cell) -> str:
        """Return the locked Python's version.

        Raises ConfigurationError where the cell asks for another Python or CUDA than is locked.
        """
        for axis, package in (("python", "python"), ("cuda", "cuda-version")):
            asked = cell.axis(axis)
            has = self.lock.version(package, this_platform())
            if has and asked[:1].isdigit() and _minor(asked) != _minor(has):
                raise ConfigurationError(
                    f"the cell asks for {axis} {asked}; the conda environment"
                    f" {self.environment} has {package} {has}",
                    remedy=f"name another environment of {spec.SPECS}/ with the key conda,"
                    f" or change the {axis} axis",
                )
        return _minor(self.lock.version("python", this_platform()))

    def python(self, version: str) -> str:
        """Return `version`: the environment is there, and nox takes its Python as it is."""
        return version

    def install(
        self, python: Path, lock_file: Path, lock: Lock, installer: Installer
    ) -> list[list[str]]:
        """Return what puts the conda packages there, and the ``uv pip install`` of the wheels.

        Not ``sync``: that would take away the Python packages that conda brought.
        """
        words = ["install", str(self.path), str(python.parents[1]), str(self.packages)]
        words += ["--digest", self.contents]
        if installer.house is not None:
            words += ["--from", str(installer.house.directory / kept.DIRECTORY)]
        if installer.offline or installer.house is not None:
            words.append("--offline")
        fill = child.command(*words)
        if not lock.pins:
            return [fill]
        return [fill, pip("install", python, lock_file, lock, installer)]


def named(name: str, store: Path) -> Conda:
    """Return the back end of the environment called `name`, whose packages lie under `store`.

    Raises ConfigurationError where nothing names one, and where it has no lock for this platform.
    """
    if not name:
        raise ConfigurationError(
            "the cell names no conda environment, and has no cuda axis that would",
            remedy=f'name one of {spec.SPECS}/ in the matrix: conda = "cuda-13.0"',
        )
    name = spec.standing_for(name, root())
    lock = locking.load(name, root())
    if not lock.version("python", this_platform()):
        raise ConfigurationError(
            f"{spec.lock_file(name)} has no python for {this_platform()}",
            remedy=f"add the platform to {spec.SPECS}/{name}.yml: pinproof conda lock {name}",
        )
    return Conda(
        environment=name, lock=lock, path=root() / spec.lock_file(name), packages=Store(store).conda
    )


def check(home: Path, inodes: Path | None = None) -> list[Change]:
    """Compare the files of an environment with what its conda packages say of them.

    As `integrity.check` does for wheels; an environment without conda packages has no change. A
    package that a wheel took the place of is not looked at. Raises OSError.
    """
    recorded = [
        row
        for record in sorted((home / "conda-meta").glob("*.json"))
        for row in _rows(home, record)
    ]
    # Where they were compared once and nothing is recorded now, all of it is gone.
    if not recorded and not (home / LOOKS).exists():
        return []
    return integrity.compare(home, recorded, home / LOOKS, inodes)


def forget(changes: Iterable[Change], packages: Path) -> None:
    """Drop the packages that were edited from the directory that environments are linked to.

    The edit may have gone through the link. What is dropped is unpacked again from its archive.
    """
    for package in {change.package for change in changes}:
        if "/" not in package and package.strip("."):
            shutil.rmtree(packages / "packages" / package, ignore_errors=True)


def _rows(home: Path, record: Path) -> list[Row]:
    """Return the files of a conda package; links and what was made at install time have no bytes.

    The sha256 is that of the file in this place: conda writes the prefix into some of them.
    """
    told = read_json(record)
    paths = told.get("paths_data", {}).get("paths", []) if isinstance(told, dict) else []
    files = {
        str(each["_path"]): str(each.get("sha256_in_prefix") or each["sha256"])
        for each in paths
        if each.get("path_type") == "hardlink" and each.get("sha256")
    }
    infos = {home / Path(file).parent for file in files if file.endswith(".dist-info/METADATA")}
    if not all(integrity.is_of_conda(each) for each in infos):
        return []
    return [
        (record.stem, file, integrity.in_record(bytes.fromhex(digest)))
        for file, digest in files.items()
    ]


def _minor(version: str) -> str:
    found = Version(version)
    return f"{found.major}.{found.minor}"
