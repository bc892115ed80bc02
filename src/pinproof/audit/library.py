"""One shared library: what GPU code it holds, and how that meets a GPU."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinproof.audit import arch as archs
from pinproof.audit import elf, fatbin
from pinproof.audit.arch import Arch, Code, Kind, Status
from pinproof.audit.fatbin import DamagedError, Unit
from pinproof.evidence.store import sha256
from pinproof.matrix import facts


@dataclass(frozen=True, kw_only=True)
class Library:
    """What was read from one library, and what that means for one GPU.

    ``file`` is its path inside what was audited, ``sass`` and ``ptx`` say what code it holds,
    ``units`` how many translation units meet the GPU in which way, ``needed`` which libraries it
    loads. ``ptx_cuda`` is the newest CUDA whose PTX the driver would have to compile, and
    ``driver`` what that asks of the driver, both "" where no unit is PTX-JIT. ``problem`` says why
    a library is UNREADABLE, ``torch_symbols`` counts the C++ symbols that it wants of torch.
    ``missing`` are the symbols that torch has not, ``load_error`` says why it could not be loaded,
    ``disagreement`` how cuobjdump reads it otherwise; each is None where that was not tried.
    """

    file: str
    sha256: str
    size: int
    status: Status
    sass: tuple[str, ...] = ()
    ptx: tuple[str, ...] = ()
    units: Mapping[Status, int] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    ptx_cuda: str = ""
    driver: str = ""
    problem: str = ""
    torch_symbols: int | None = None
    missing: tuple[str, ...] | None = None
    load_error: str | None = None
    disagreement: str | None = None

    @property
    def is_broken(self) -> bool:
        """True where it cannot be read or loaded, lacks a symbol, or is read in two ways."""
        return bool(self.problem or self.missing or self.load_error or self.disagreement)

    @property
    def all_native(self) -> bool:
        """True where every unit with GPU code has machine code for the GPU."""
        return self.status is Status.NATIVE and set(self.units) == {Status.NATIVE}

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "bytes": self.size,
            "status": str(self.status),
            "units": {str(status): count for status, count in self.units.items()},
            "sass": list(self.sass),
            "ptx": list(self.ptx),
            "ptx_cuda": self.ptx_cuda,
            "driver": self.driver,
            "needed": list(self.needed),
            "problem": self.problem,
            "torch_symbols": self.torch_symbols,
            "missing": None if self.missing is None else list(self.missing),
            "load_error": self.load_error,
            "disagreement": self.disagreement,
        }


def read(path: Path, file: str, gpu: Arch) -> Library:
    """Audit the library at `path`, called `file`, for `gpu`. Raises OSError."""
    digest, size = sha256(path), path.stat().st_size
    try:
        found, needed = code_of(path)
    except DamagedError as error:
        return Library(
            file=file, sha256=digest, size=size, status=Status.UNREADABLE, problem=str(error)
        )
    found = [unit for unit in found if unit]
    ends = Counter(_status_of(unit, gpu) for unit in found)
    best = min(ends, key=lambda status: status.rank, default=Status.NO_GPU_CODE)
    jit = [code for unit in found if _status_of(unit, gpu) is Status.PTX_JIT for code in unit]
    cuda = _newest_cuda(code for code in jit if archs.status(code, gpu) is Status.PTX_JIT)
    code = sorted({code for unit in found for code in unit}, key=lambda each: each.arch)
    return Library(
        file=file,
        sha256=digest,
        size=size,
        status=best,
        sass=tuple(str(each) for each in code if each.kind is Kind.SASS),
        ptx=tuple(str(each) for each in code if each.kind is Kind.PTX),
        units={status: ends[status] for status in Status if status in ends},
        needed=needed,
        ptx_cuda=cuda,
        driver=_driver(cuda),
    )


def code_of(path: Path) -> tuple[list[Unit], tuple[str, ...]]:
    """Return the units of GPU code in a library, and the libraries that it needs.

    Raises DamagedError where it is cut off or no shared library, OSError where it is not there.
    """
    with path.open("rb") as stream:
        about = elf.read(stream)
        if not about.gpu:
            return [], about.needed
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = [unit for start, stop in about.gpu for unit in fatbin.units(data, start, stop)]
    return found, about.needed


def _status_of(unit: Unit, gpu: Arch) -> Status:
    """Return the best that a unit offers: the driver takes machine code before PTX."""
    return min((archs.status(code, gpu) for code in unit), key=lambda status: status.rank)


def _newest_cuda(codes: Iterable[Code]) -> str:
    versions = {code.version for code in codes if code.kind is Kind.PTX}
    return archs.cuda_of_ptx(max(versions)) if versions else ""


def _driver(cuda: str) -> str:
    """Say which driver compiles the PTX of a CUDA release; minor-version rules do not cover it."""
    if not cuda:
        return ""
    known = facts.shipped().of("cuda", cuda).get("driver")
    exact = facts.shipped().of("cuda", f"{cuda.partition('.')[0]}.0").get("driver")
    if known is None:
        return f"the one of CUDA {cuda} or newer"
    if known == exact and not cuda.endswith(".0"):
        return f"the one of CUDA {cuda} or newer (above R{known})"
    return f"R{known} or newer"
