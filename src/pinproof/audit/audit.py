"""Audits what a subject holds, library by library, and says what came of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pinproof.audit import cuobjdump, elf, library, load, subject, torch_abi
from pinproof.audit.arch import Arch, Status
from pinproof.audit.fatbin import DamagedError
from pinproof.audit.library import Library
from pinproof.audit.subject import Found, Subject
from pinproof.errors import ConfigurationError, ExitCode, NothingRanError
from pinproof.locks.download import Target

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found in one subject. ``torch`` says whose symbols were compared, or ""."""

    subject: str
    wheel: str
    gpu: Arch
    libraries: tuple[Library, ...]
    torch: str = ""

    @property
    def is_broken(self) -> bool:
        """True where a library cannot be read or loaded, or lacks symbols."""
        return any(each.is_broken for each in self.libraries)

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        counts = Counter(str(each.status) for each in self.libraries)
        return {
            "subject": self.subject,
            "wheel": self.wheel,
            "arch": str(self.gpu),
            "torch": self.torch,
            "statuses": {str(status): counts[status] for status in Status if status in counts},
            "libraries": [each.to_json() for each in self.libraries],
        }


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for: the GPU, whom wheels are for, and what to try beside the reading.

    ``torch`` names the torch whose symbols count, ``compare`` asks cuobjdump about every library,
    ``load`` loads each in a child.
    """

    gpu: Arch
    target: Target
    torch: str = ""
    compare: bool = False
    load: bool = False


def run(
    names: Sequence[str], order: Order, tell: Callable[[Audit], None] = lambda audit: None
) -> tuple[Audit, ...]:
    """Audit every subject in `names`, and `tell` each as it is done.

    Raises PinproofError where a subject cannot be audited, or holds no library at all.
    """
    audits = []
    with _torch(order) as (torch, exports):
        for name in names:
            with subject.opened(name, order.target) as found:
                audit = _audit(found, order, torch, exports)
            if not audit.libraries:
                raise NothingRanError(
                    f"{name} holds no shared library",
                    cause="it is pure Python, or not the one meant",
                )
            audits.append(audit)
            tell(audit)
    return tuple(audits)


def document(audits: Sequence[Audit]) -> dict[str, Any]:
    """Return what `audits` found as JSON values."""
    return {"schema": SCHEMA, "audits": [audit.to_json() for audit in audits]}


def exit_code(audits: Sequence[Audit]) -> ExitCode:
    """Return OK, or UNSAFE where something that was read is broken."""
    return ExitCode.UNSAFE if any(audit.is_broken for audit in audits) else ExitCode.OK


@contextlib.contextmanager
def _torch(order: Order) -> Iterator[tuple[str, frozenset[str] | None]]:
    """Yield the name of the torch that was asked for, and what it exports."""
    if not order.torch:
        yield "", None
        return
    with subject.opened(order.torch, order.target) as found:
        directory = found.torch_lib
        if directory is None:
            raise ConfigurationError(
                f"{order.torch} holds no torch",
                remedy="name a torch wheel or an environment with one",
            )
        exports = _exports(directory)
    yield order.torch, exports


def _exports(directory: Path) -> frozenset[str]:
    try:
        return torch_abi.exports(directory)
    except DamagedError as error:
        raise ConfigurationError(f"{directory}: {error}") from None


def _audit(found: Subject, order: Order, torch: str, exports: frozenset[str] | None) -> Audit:
    files = list(found.libraries())
    own = found.torch_lib
    if exports is None and own is not None:
        torch, exports = f"the torch in {found.name}", _exports(own)
    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter lock
        read = list(pool.map(lambda each: library.read(each.path, each.file, order.gpu), files))
    read = [_with_symbols(each, at.path, exports) for each, at in zip(read, files, strict=True)]
    if order.compare:
        read = [_compared(each, at.path) for each, at in zip(read, files, strict=True)]
    if order.load:
        read = _loaded(found, files, read)
    return Audit(
        subject=found.name,
        wheel=found.wheel,
        gpu=order.gpu,
        libraries=tuple(read),
        torch=torch,
    )


def _with_symbols(read: Library, path: Path, exports: frozenset[str] | None) -> Library:
    """Add what the library wants of torch, and with `exports` what torch lacks of that."""
    if not any(map(torch_abi.is_torchs, read.needed)) or torch_abi.is_torchs(read.file):
        return read
    try:
        with path.open("rb") as stream:
            cpp, stable = torch_abi.needs(elf.symbols(stream).undefined)
    except DamagedError as error:
        return replace(read, status=Status.UNREADABLE, problem=str(error))
    missing = None if exports is None else tuple(sorted((cpp | stable) - exports))
    return replace(read, torch_symbols=len(cpp), missing=missing)


def _compared(read: Library, path: Path) -> Library:
    """Ask cuobjdump what it lists of the library."""
    if read.problem:
        return read
    units, _ = library.code_of(path)
    return replace(read, disagreement=cuobjdump.differs(cuobjdump.find(), path, units))


def _loaded(found: Subject, files: Sequence[Found], read: Sequence[Library]) -> list[Library]:
    """Load every library that has GPU code or needs torch in a child of the environment."""
    python = found.python
    if python is None:
        raise ConfigurationError(
            f"{found.name} is no environment, so nothing of it can be loaded",
            remedy="install it, and name the environment's directory with --load",
        )
    readable = [at.path for each, at in zip(read, files, strict=True) if not each.problem]
    with tempfile.TemporaryDirectory(prefix="pinproof-stub-") as folder:
        stub = load.make_stub(readable, Path(folder))
        result = []
        for each, at in zip(read, files, strict=True):
            with_torch = any(map(torch_abi.is_torchs, each.needed))
            of_interest = found.loads(at.file) and (with_torch or each.units)
            if each.problem or not of_interest:
                result.append(each)
                continue
            error = load.try_load(python, at.path, stub=stub, with_torch=with_torch)
            result.append(replace(each, load_error=error))
    return result
