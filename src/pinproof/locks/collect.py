"""Collects the wheels of a matrix into a wheelhouse, for another machine, platform and Python."""

from __future__ import annotations

import platform as host
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from packaging.utils import canonicalize_name

from pinproof.builds import build
from pinproof.errors import (
    ConfigurationError,
    InfrastructureError,
    NothingRanError,
    ResolveError,
)
from pinproof.evidence.store import sha256
from pinproof.locks import download, pipconfig, wheelhouse
from pinproof.locks.download import Target
from pinproof.locks.installer import installer
from pinproof.locks.lock import Lock, Pin, Request
from pinproof.locks.resolution import Resolution
from pinproof.locks.resolve import resolve
from pinproof.locks.wheelhouse import HOST, Entry, House, Wheel, key_of
from pinproof.locks.wheeltags import platform_tags
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Matrix
from pinproof.plan import recipe
from pinproof.run import process

#: The glibc versions that uv has a platform name for.
_GLIBC = (17, 28, *range(31, 41))

_FROZEN = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)(?:==|\s+)(?P<version>\d[\w.+!-]*)\b.*", re.ASCII
)
_ELSEWHERE = re.compile(r"(?:(?P<name>[A-Za-z0-9][\w.-]*) @ |-e .*#egg=(?P<egg>[\w.-]+))", re.ASCII)

#: What `make` tells while it works: what it does now, how much is done, how much there is.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for. ``installed`` is what the target has already, None where nothing counts.

    ``requirements`` are those of Pinproof itself; ``python`` is "3.12", ``platform`` a name of uv.
    """

    matrix_file: Path
    matrix: str
    out: Path
    python: str
    platform: str
    requirements: tuple[str, ...] = ()
    installed: Mapping[str, str] | None = None
    backend: str | None = None
    select: str = ""


def make(order: Order, tell: Tell = lambda text, done, total: None) -> House:
    """Collect what the cells of a matrix install on the target machine, and write the manifest.

    Wheels that are there already are kept. Cells whose requirements conflict are recorded as
    that. Raises ConfigurationError for a wrong order, NothingRanError where it selects no cell,
    ResolveError and InfrastructureError where an index, pip or the disk fails.
    """
    platform_tags(order.platform)
    requests, notes = _requests(order)
    try:
        order.out.mkdir(parents=True, exist_ok=True)
        answers = _resolved(requests, tell)
        wanted = _wanted(answers, requests)
        _download(order, [entry for entry in answers.values() if entry.resolution], wanted, tell)
        wheels = _verified(order.out, wanted)
    except OSError as error:
        raise InfrastructureError(f"{order.out} cannot be written: {error.strerror}") from error
    found = (entry.resolution for entry in answers.values() if entry.resolution)
    house = House(
        directory=order.out,
        matrix=order.matrix,
        python=order.python,
        platform=order.platform,
        wheels=wheels,
        entries=answers,
        cells={owner: key_of(request) for owner, request in requests.items()},
        notes=tuple(dict.fromkeys([*notes, *(note for each in found for note in each.notes)])),
    )
    wheelhouse.save(house)
    return house


def this_platform() -> str:
    """Return uv's name for this machine. Raises ConfigurationError where it has no glibc."""
    match = re.fullmatch(r"2\.(\d+)", host.libc_ver()[1])
    if match is None or int(match[1]) < _GLIBC[0]:
        raise ConfigurationError(
            "this machine has no glibc to take the platform from",
            remedy="name the target's: --platform x86_64-manylinux_2_35",
        )
    return f"{host.machine()}-manylinux_2_{max(n for n in _GLIBC if n <= int(match[1]))}"


def frozen(text: str) -> dict[str, str]:
    """Return name and version of every package in the output of ``pip freeze`` or ``pip list``.

    A package from a directory or an address has no version there: it gets "0".
    """
    packages: dict[str, str] = {}
    for line in text.split("\n"):
        if match := _ELSEWHERE.match(line):
            packages[canonicalize_name(match["name"] or match["egg"])] = "0"
        elif match := _FROZEN.fullmatch(line.strip()):
            packages[canonicalize_name(match["name"])] = match["version"]
    return packages


def read_frozen(path: Path) -> dict[str, str]:
    """Read a file that ``pip freeze`` or ``pip list`` wrote, as `frozen`.

    Raises ConfigurationError where it cannot be read or names no package.
    """
    try:
        packages = frozen(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--installed {path} cannot be read: {error}") from None
    if not packages:
        raise ConfigurationError(
            f"--installed {path} names no package", remedy="write it with: pip freeze"
        )
    return packages


def host_requirements(pyproject: Path) -> tuple[str, ...]:
    """Return what Pinproof itself depends on."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return tuple(project["dependencies"])


def _requests(order: Order) -> tuple[dict[str, Request], list[str]]:
    """Return the request of every cell and of the host, and what the house will not hold."""
    matrix = matrixfile.load(order.matrix_file).named(order.matrix)
    matrix = matrix.on(cast("Any", order.backend))
    chosen = cells.select(cells.expand(matrix), order.select)
    tried = [cell for cell in chosen if cell.exclusion is None]
    if not tried:
        raise NothingRanError(f"no cell of {order.matrix} is left to collect wheels for")
    requests: dict[str, Request] = {}
    notes: list[str] = []
    for cell in tried:
        requests[cell.id] = _request(order, matrix, cell)
        for project in build.needed(cell):
            notes.append(f"{project} is built from source, and its source is not collected")
    if order.requirements:
        requests[HOST] = Request(
            product=order.requirements,
            harness=(),
            python=order.python,
            platform=order.platform,
        )
    return requests, notes


def _request(order: Order, matrix: Matrix, cell: Cell) -> Request:
    system = None
    if matrixfile.settings(matrix, cell).backend == "system":
        if order.installed is None:
            raise ConfigurationError(
                f"{cell.id} stands on what the target has installed, and that is not known here",
                remedy="run pip freeze on the target, and pass its output with --installed",
            )
        system = order.installed
    work = recipe.of(cell, matrix, python=order.python, system=system)
    return replace(work.request, platform=order.platform)


def _resolved(requests: Mapping[str, Request], tell: Tell) -> dict[str, Entry]:
    """Resolve every request once; the cells of equal ones share the answer."""
    tool = installer()
    answers: dict[str, Entry] = {}
    for done, (owner, request) in enumerate(requests.items()):
        tell(f"resolve {owner}", done, len(requests))
        key = key_of(request)
        if key in answers:
            continue
        try:
            found: Resolution | None = resolve(request, tool)
            conflict = ""
        except ResolveError as error:
            if not error.conflict or owner == HOST:
                raise
            found, conflict = None, f"{error.what}: {error.cause}"
        answers[key] = Entry(
            key=key, excludes=request.excludes, resolution=found, conflict=conflict
        )
    return answers


def _wanted(
    answers: Mapping[str, Entry], requests: Mapping[str, Request]
) -> dict[str, tuple[Pin, tuple[str, ...]]]:
    """Return by file name the pin and who it is for."""
    wanted: dict[str, tuple[Pin, tuple[str, ...]]] = {}
    for owner, request in requests.items():
        found = answers[key_of(request)].resolution
        for pin in found.lock.pins if found else ():
            pinned, owners = wanted.get(pin.file, (pin, ()))
            if pinned != pin:
                raise InfrastructureError(
                    f"two indexes have different files called {pin.file}",
                    remedy="leave one of the indexes out of pip's configuration",
                )
            wanted[pin.file] = pin, (*owners, owner)
    return dict(sorted(wanted.items()))


def _download(
    order: Order, entries: Sequence[Entry], wanted: Mapping[str, object], tell: Tell
) -> None:
    """Fetch what is missing, lock by lock: pip takes no package twice in one call."""
    total = len(wanted)
    for entry in entries:
        assert entry.resolution is not None  # noqa: S101 - the caller chose those
        lock = entry.resolution.lock
        missing = [pin for pin in lock.pins if not _is_there(order.out / pin.file, pin)]
        if not missing:
            continue
        listing = order.out / "wanted.txt"
        listing.write_text("".join(f"{pin}\n" for pin in missing), encoding="utf-8")
        here = total - len(_absent(order.out, wanted))

        def line(text: str, here: int = here) -> None:
            if text.lstrip().startswith(("Collecting", "Downloading", "Saved")):
                tell(text.strip(), total - len(_absent(order.out, wanted)), total)

        try:
            tell(f"fetch {len(missing)} wheels", here, total)
            done = process.run(
                [*download.pip(), *_download_words(order, listing)],
                env=download.pip_env(),
                on_line=line,
            )
        finally:
            listing.unlink()
        if not done.ok:
            raise _download_error(done.output, lock)


def _download_words(order: Order, listing: Path) -> Iterator[str]:
    yield from ("download", "--no-deps", "--require-hashes", "--only-binary", ":all:")
    yield from Target(python=order.python, platform=order.platform).words()
    yield from ("--requirement", str(listing), "--dest", str(order.out))
    yield from ("--progress-bar", "off", "--disable-pip-version-check")


def _download_error(output: str, lock: Lock) -> InfrastructureError:
    lines = [line for line in output.strip().split("\n") if line.startswith("ERROR")]
    backend = lock.torch_backend
    return InfrastructureError(
        "pip could not fetch the wheels",
        cause=pipconfig.redact(lines[0] if lines else output.strip()[-300:]),
        remedy=f"add the index of {backend} builds of torch to pip's extra-index-url"
        if backend
        else "check the network and the disk, then run again: what is there is kept",
    )


def _absent(out: Path, files: Iterable[str]) -> list[str]:
    return [file for file in files if not (out / file).is_file()]


def _is_there(path: Path, pin: Pin) -> bool:
    return path.is_file() and sha256(path) == pin.sha256


def _verified(out: Path, wanted: Mapping[str, tuple[Pin, tuple[str, ...]]]) -> tuple[Wheel, ...]:
    wheels = []
    for file, (pin, owners) in wanted.items():
        path = out / file
        if not _is_there(path, pin):
            raise InfrastructureError(f"{file} was not fetched, or is not the file of its lock")
        wheels.append(Wheel(file=file, sha256=pin.sha256, size=path.stat().st_size, cells=owners))
    return tuple(wheels)
