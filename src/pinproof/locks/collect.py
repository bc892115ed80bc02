"""Collects the wheels of a matrix into a wheelhouse, for another machine, platform and Python."""

from __future__ import annotations

import platform as host
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from packaging.utils import canonicalize_name

from pinproof.builds import build, lookups
from pinproof.errors import (
    ConfigurationError,
    InfrastructureError,
    NothingRanError,
    ResolveError,
)
from pinproof.locks import gather, lockfile, wheelhouse
from pinproof.locks.conda import install, kept, locking, packages, spec
from pinproof.locks.gather import Tell
from pinproof.locks.installer import Installer, installer
from pinproof.locks.lock import Request
from pinproof.locks.lockfile import Lockfile
from pinproof.locks.resolution import Resolution
from pinproof.locks.resolve import resolve
from pinproof.locks.wheelhouse import HOST, Entry, House, Wheel, key_without_machine
from pinproof.locks.wheeltags import platform_tags
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Matrix
from pinproof.options import root
from pinproof.plan import recipe

#: The glibc versions that uv has a platform name for.
_GLIBC = (17, 28, *range(31, 41))

_FROZEN = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)(?:==|\s+)(?P<version>\d[\w.+!-]*)\b.*", re.ASCII
)
_ELSEWHERE = re.compile(r"(?:(?P<name>[A-Za-z0-9][\w.-]*) @ |-e .*#egg=(?P<egg>[\w.-]+))", re.ASCII)


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


def make(order: Order, tell: Tell = gather.silent) -> House:
    """Collect what the cells of a matrix install on the target machine, and write the manifest.

    Wheels that are there already are kept. Cells whose requirements conflict are recorded as
    that. Raises ConfigurationError for a wrong order, NothingRanError where it selects no cell,
    ResolveError and InfrastructureError where an index, pip or the disk fails.
    """
    platform_tags(order.platform)
    known = lockfile.load(lockfile.path_of(order.matrix_file, order.matrix))
    known = known or Lockfile(matrix=order.matrix)
    requests, notes = _requests(order, known)
    tool = installer(named=matrixfile.load(order.matrix_file).indexes)
    try:
        order.out.mkdir(parents=True, exist_ok=True)
        answers = _resolved(requests, known, tool, tell)
    except OSError as error:
        raise InfrastructureError(f"{order.out} cannot be written: {error.strerror}") from error
    owners = {owner: key_without_machine(request) for owner, request in requests.items()}
    wheels = gather.wheels(
        order.out, answers, owners, platform=order.platform, places=tool.places, tell=tell
    )
    beside: dict[str, Wheel] = {}
    for name in _environments(order):
        tell(f"fetch the conda packages of {name}", 0, 0)
        platform = spec.platform_of(order.platform)
        install.fetch(name, root(), order.out, platform)
        for package in locking.load(name, root()).of(platform):
            each = Wheel.of(order.out, packages.place(package, order.out / kept.DIRECTORY))
            beside[each.file] = each
    found = (entry.resolution for entry in answers.values() if entry.resolution)
    house = House(
        directory=order.out,
        matrix=order.matrix,
        python=order.python,
        platform=order.platform,
        wheels=wheels,
        entries=answers,
        cells=owners,
        notes=tuple(dict.fromkeys([*notes, *(note for each in found for note in each.notes)])),
        beside=tuple(beside.values()),
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


def host_request(requirements: tuple[str, ...], python: str, platform: str) -> Request:
    """Return the request of Pinproof itself, for the machine that runs it."""
    return Request(product=requirements, harness=(), python=python, platform=platform)


def _requests(order: Order, known: Lockfile) -> tuple[dict[str, Request], list[str]]:
    """Return the request of every cell and of the host, and what the house will not hold."""
    matrix = _matrix(order)
    chosen = cells.select(cells.expand(matrix), order.select)
    tried = [cell for cell in chosen if cell.exclusion is None]
    if not tried:
        raise NothingRanError(f"no cell of {order.matrix} is left to collect wheels for")
    requests: dict[str, Request] = {}
    notes: list[str] = []
    for cell in tried:
        requests[cell.id] = _request(order, matrix, cell, known)
        for project in build.needed(cell):
            notes.append(f"{project} is built from source, and its source is not collected")
    if order.requirements:
        requests[HOST] = host_request(order.requirements, order.python, order.platform)
    return requests, notes


def _environments(order: Order) -> list[str]:
    """Return the conda environments that the cells of an order stand on."""
    matrix = _matrix(order)
    chosen = cells.select(cells.expand(matrix), order.select)
    own = [matrixfile.settings(matrix, cell) for cell in chosen if cell.exclusion is None]
    return sorted(
        {spec.standing_for(each.conda, root()) for each in own if each.backend == "conda"}
    )


def _matrix(order: Order) -> Matrix:
    matrix = matrixfile.load(order.matrix_file).named(order.matrix)
    return matrix.on(cast("Any", order.backend))


def _request(order: Order, matrix: Matrix, cell: Cell, known: Lockfile) -> Request:
    system, default = None, order.python
    settings = matrixfile.settings(matrix, cell)
    if settings.backend == "conda":
        lock = locking.load(spec.standing_for(settings.conda, root()), root())
        version = lock.version("python", spec.platform_of(order.platform)) or default
        default = ".".join(version.split(".")[:2])
    if settings.backend == "system":
        if order.installed is None:
            raise ConfigurationError(
                f"{cell.id} stands on what the target has installed, and that is not known here",
                remedy="run pip freeze on the target, and pass its output with --installed",
            )
        system = order.installed
    python = ".".join(cell.axis("python", default).split(".")[:2])
    fixed = known.fixed(cell, python, order.platform)
    looked = lookups.look(cell, matrix, fixed)
    work = recipe.of(cell, matrix, python=default, system=system, fixed=fixed, looked=looked)
    return replace(work.request, platform=order.platform)


def _resolved(
    requests: Mapping[str, Request], known: Lockfile, tool: Installer, tell: Tell
) -> dict[str, Entry]:
    """Resolve every request once, as the committed lock has it; equal ones share the answer."""
    answers: dict[str, Entry] = {}
    for done, (owner, request) in enumerate(requests.items()):
        tell(f"resolve {owner}", done, len(requests))
        key = key_without_machine(request)
        if key in answers:
            continue
        try:
            held = known.recall(owner, request, request.platform or "")
            found: Resolution | None = resolve(request, tool, held=held)
            conflict = ""
        except ResolveError as error:
            if not error.conflict or owner == HOST:
                raise
            found, conflict = None, f"{error.what}: {error.cause}"
        answers[key] = Entry(
            key=key, excludes=request.excludes, resolution=found, conflict=conflict
        )
    return answers
