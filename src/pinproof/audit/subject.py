"""What can be audited: a wheel, an environment, a directory, a library, or a requirement."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from pinproof.audit import archive, elf
from pinproof.errors import ConfigurationError
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
        """Yield every shared library below the root, each file once, whatever links to it.

        A library is called by its own place: what it needs is looked for beside that. Of the tree
        of a build that is under way, the objects that are compiled count too.
        """
        seen: set[Path] = set()
        single, whole = self.root.is_file(), self.root.resolve()
        objects = () if self.python else self.root.rglob("*.o")
        for path in [self.root] if single else sorted([*self.root.rglob("*.so*"), *objects]):
            real = path.resolve()
            if real in seen or not real.is_file() or not _is_library(path):
                continue
            if path.is_symlink() and real.is_relative_to(whole) and _is_library(real):
                continue
            seen.add(real)
            yield Found(
                path=path, file=path.name if single else path.relative_to(self.root).as_posix()
            )

    @property
    def torch_lib(self) -> Path | None:
        """The directory of torch's own libraries, where the subject holds a torch."""
        return next(iter(sorted(self.root.glob("**/torch/lib"))), None)

    def loads(self, file: str) -> bool:
        """Say if the interpreter of an environment would load `file`, and it alone.

        An extension of another Python it passes by, and torch's own are what `import torch` loads.
        """
        tag = re.search(r"\.cpython-(\d+)", file)
        tags = {path.name.replace("python", "").replace(".", "") for path in self._lib_dirs}
        return (tag is None or tag[1] in tags) and not re.search(r"(^|/)torch/_C\.", file)

    @property
    def _lib_dirs(self) -> list[Path]:
        return sorted(self.root.glob("lib/python3*"))

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
    """Unpack the shared libraries of a wheel into `into`, and return that; see `archive.unpack`."""
    return archive.unpack(wheel, into, lambda name: ".so" in PurePosixPath(name).suffixes)


def _is_library(path: Path) -> bool:
    if path.suffix not in (".so", ".o") and ".so." not in path.name:
        return False
    with path.open("rb") as stream:
        return elf.is_elf(stream)


def _requirement(text: str) -> Requirement:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        if "/" in text or text.endswith(".whl"):
            raise ConfigurationError(f"{text} does not exist") from None
        raise ConfigurationError(
            f"{text!r} is no file, no directory and no requirement",
            remedy="name a wheel, a directory, an environment, or a package as vllm==0.33.0",
        ) from None
    if requirement.url:
        raise ConfigurationError(
            f"{text!r} names an address", remedy="fetch the wheel, and name the file"
        )
    return requirement
