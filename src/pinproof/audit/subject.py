"""What can be audited: a wheel, an environment, a directory, a library, or a requirement."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from pinproof.audit import elf
from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.locks import download
from pinproof.locks.download import Target


@dataclass(frozen=True, kw_only=True)
class Found:
    """A shared library on disk; ``file`` is its path inside what is audited."""

    path: Path
    file: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What one argument names: ``name`` for people, ``root`` on disk, ``wheel`` where it is one."""

    name: str
    root: Path
    wheel: str = ""

    def libraries(self) -> Iterator[Found]:
        """Yield every shared library below the root, each file once, whatever links to it."""
        seen: set[Path] = set()
        single = self.root.is_file()
        for path in [self.root] if single else sorted(self.root.rglob("*.so*")):
            real = path.resolve()
            if real in seen or not real.is_file() or not _is_library(path):
                continue
            seen.add(real)
            yield Found(
                path=path, file=path.name if single else path.relative_to(self.root).as_posix()
            )

    @property
    def torch_lib(self) -> Path | None:
        """The directory of torch's own libraries, where the subject holds a torch."""
        return next(iter(sorted(self.root.glob("**/torch/lib"))), None)

    @property
    def python(self) -> Path | None:
        """The interpreter of an environment, None for anything else."""
        python = self.root / "bin" / "python"
        return python if python.is_file() else None


@contextlib.contextmanager
def opened(text: str, target: Target) -> Iterator[Subject]:
    """Yield what `text` names; what had to be fetched or unpacked is removed at the end.

    Raises ConfigurationError where it is nothing that can be audited, ResolveError where no wheel
    fits `target`, InfrastructureError where the network or the disk fails.
    """
    path = Path(text)
    with tempfile.TemporaryDirectory(prefix="pinproof-audit-") as folder:
        if path.is_dir() or (path.is_file() and path.suffix != ".whl"):
            yield Subject(name=text, root=path)
            return
        if not path.is_file():
            path = download.wheel(_requirement(text), target, Path(folder))
        yield Subject(name=text, root=unpacked(path, Path(folder) / "tree"), wheel=path.name)


def unpacked(wheel: Path, into: Path) -> Path:
    """Unpack the shared libraries of a wheel, and return the directory.

    Raises ConfigurationError where it is no archive or has members outside of itself,
    InfrastructureError where the disk has no room.
    """
    into.mkdir(parents=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.infolist()
            check_members(wheel.name, (member.filename for member in members))
            wanted = [each for each in members if ".so" in PurePosixPath(each.filename).suffixes]
            room, need = shutil.disk_usage(into).free, sum(each.file_size for each in wanted)
            if need > room:
                raise InfrastructureError(
                    f"{wheel.name} unpacks to {need / 1e9:.1f} GB, and {room / 1e9:.1f} are free",
                    remedy="free space, or set TMPDIR to a larger disk",
                )
            for member in wanted:
                archive.extract(member, into)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ConfigurationError(
            f"{wheel.name} is no whole wheel: {error}", remedy="fetch it again"
        ) from None
    except OSError as error:
        raise InfrastructureError(f"{wheel.name} cannot be unpacked: {error}") from None
    return into


def check_members(archive: str, members: Iterator[str]) -> None:
    """Raise ConfigurationError where a member of an archive would land outside of its place."""
    for member in members:
        parts = PurePosixPath(member.replace("\\", "/")).parts
        if member.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
            raise ConfigurationError(
                f"{archive} has a member {member!r}, which points outside of the archive",
                cause="it was made to overwrite files of whoever unpacks it",
                remedy="do not use it; get the file from where its project publishes it",
            )


def _is_library(path: Path) -> bool:
    if path.suffix != ".so" and ".so." not in path.name:
        return False
    with path.open("rb") as stream:
        return elf.is_elf(stream)


def _requirement(text: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise ConfigurationError(
            f"{text!r} is no file, no directory and no requirement",
            remedy="name a wheel, a directory, an environment, or a package as vllm==0.33.0",
        ) from None
    if requirement.url:
        raise ConfigurationError(
            f"{text!r} names an address", remedy="fetch the wheel, and name the file"
        )
    return requirement
