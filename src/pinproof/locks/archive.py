"""An archive: a wheelhouse that grows, with the very files of cells that were proven.

A nightly leaves its index after some weeks, and a lock that names it is then worth nothing. An
archive keeps the wheels themselves, those that were built from source too, and those that
Pinproof needs; a cell is made from it again as from any other wheelhouse.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pinproof.builds.cache import Cache
from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.evidence.store import sha256
from pinproof.locks import collect, gather, wheelhouse
from pinproof.locks.conda import kept
from pinproof.locks.fixed import Fixed
from pinproof.locks.gather import Tell
from pinproof.locks.installer import Installer
from pinproof.locks.lock import Request
from pinproof.locks.resolution import Resolution
from pinproof.locks.resolve import resolve
from pinproof.locks.wheelhouse import (
    BUILDS,
    HOST,
    MANIFEST,
    Entry,
    House,
    Wheel,
    key_without_machine,
)


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A cell to keep: what it asked for, what it got, the keys of the wheels built for it.

    ``values`` are what its moving values stood for.
    """

    cell: str
    matrix: str
    request: Request
    resolution: Resolution
    builds: tuple[str, ...] = ()
    values: tuple[Fixed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A file of an archive that is not the one that its manifest lists, and whose it is."""

    file: str
    what: str
    cells: tuple[str, ...] = ()

    def __str__(self) -> str:
        whose = f", for {', '.join(self.cells)}" if self.cells else ""
        return f"{self.file} {self.what}{whose}"


def add(
    out: Path,
    proven: Sequence[Proven],
    *,
    built: Cache,
    installer: Installer,
    requirements: tuple[str, ...] = (),
    tell: Tell = gather.silent,
) -> House:
    """Put the files of `proven` cells into the archive in `out`; `seal` writes what that holds.

    What it holds already is kept. `built` is the cache that their builds are in, `requirements`
    are those of Pinproof itself. Raises ConfigurationError where `out` is something else, or
    holds other files for the same request; InfrastructureError where a file cannot be had.
    """
    old = wheelhouse.read(out) if (out / MANIFEST).exists() else _begun(out)
    entries = {
        key_without_machine(each.request): Entry(
            key=key_without_machine(each.request),
            excludes=each.request.excludes,
            resolution=each.resolution,
        )
        for each in proven
    }
    cells = {each.cell: key_without_machine(each.request) for each in proven}
    _reject_others(old, entries, cells)
    if requirements:
        request = collect.host_request(requirements, old.python, old.platform)
        key = cells[HOST] = key_without_machine(request)
        known = old.entries.get(key)
        entries[key] = known or Entry(key=key, excludes=(), resolution=resolve(request, installer))
    source = installer.pip_args
    found = gather.wheels(
        out,
        entries,
        cells,
        platform=old.platform,
        source=source,
        places=installer.places,
        tell=tell,
    )
    _reject_renamed(old.wheels, found)
    house = _merged(old, found, entries, cells, proven)
    return replace(house, beside=_united(old.beside, _keep_builds(out, proven, built)))


def seal(house: House, pins: Mapping[str, Sequence[Path]]) -> House:
    """Write the manifest of an archive, when all else lies there, and return what it holds.

    `pins` are the files of pins by cell; what conda packages it has they tell. Raises
    InfrastructureError where one of these is not there, or the disk refuses.
    """
    out = house.directory
    files = {path: (cell,) for cell, paths in pins.items() for path in paths}
    below = {path: known for path, known in kept.needed(out).items() if set(known[1]) & pins.keys()}
    try:
        found = [Wheel.of(out, path, cells) for path, cells in files.items()]
        found += [Wheel.of(out, path, cells) for path, (_, cells) in below.items()]
    except OSError as error:
        raise InfrastructureError(f"the archive lacks {error.filename}") from None
    wheelhouse.save(replace(house, beside=_united(house.beside, found)))
    return wheelhouse.load(out)


def verify(out: Path) -> list[Damage]:
    """Read every file of the archive in `out` again, and name what is missing, other or too much.

    Raises ConfigurationError where `out` is no archive.
    """
    house = wheelhouse.read(out)
    listed = {each.file: each for each in (*house.wheels, *house.beside)}
    damaged = [
        Damage(file=each.file, what=what, cells=each.cells)
        for each in listed.values()
        if (what := _damage(out / each.file, each.sha256))
    ]
    there = (str(path.relative_to(out)) for path in sorted(out.rglob("*")) if not path.is_dir())
    unknown = (file for file in there if file != MANIFEST and file not in listed)
    what = f"is not listed in {MANIFEST}"
    return [*damaged, *(Damage(file=file, what=what) for file in unknown)]


def _damage(path: Path, digest: str) -> str:
    try:
        return "" if sha256(path) == digest else "is not the file that was archived"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _begun(out: Path) -> House:
    """Return a new archive, which is one from now on: what ends half-way can be gone on with.

    Raises ConfigurationError where other things lie in `out`, InfrastructureError where the disk
    refuses.
    """
    # A disk of its own has a directory of its file system in it.
    if out.is_dir() and any(path.name != "lost+found" for path in out.iterdir()):
        raise ConfigurationError(
            f"{out} holds other things, and is no archive: it has no {MANIFEST}",
            remedy="name an empty directory, or one that is not there yet: --out DIR",
        )
    house = House(
        directory=out,
        matrix="",
        python="{}.{}".format(*sys.version_info[:2]),
        platform=collect.this_platform(),
        wheels=(),
        entries={},
        cells={},
    )
    wheelhouse.save(house)
    return house


def _reject_others(old: House, entries: Mapping[str, Entry], cells: Mapping[str, str]) -> None:
    """Raise where the archive answers a request with other files: it could only give back one."""
    for cell, key in cells.items():
        known, found = old.entries.get(key), entries[key].resolution
        there = known.resolution.lock.pins if known and known.resolution else None
        if there is None or found is None or there == found.lock.pins:
            continue
        other = next(iter(set(found.lock.pins) - set(there)), None)
        raise ConfigurationError(
            f"{old.directory} holds other files for {cell}",
            cause=f"{other.name} is now {other.version}" if other else "",
            remedy="archive into another directory, or name the version in the matrix in place of"
            " what moves",
        )


def _keep_builds(out: Path, proven: Sequence[Proven], built: Cache) -> Iterator[Wheel]:
    """Put the wheels that were built into the archive; yield each with the record of its build."""
    cache = Cache(out / BUILDS)
    for each in proven:
        for key in each.builds:
            record = cache.adopt(key, built)
            if record is None:
                raise InfrastructureError(
                    f"a wheel that was built for {each.cell} is not there",
                    cause="it was removed or edited since",
                    remedy="run the cell again: it is built anew",
                )
            for path in (cache.wheel_path(record), cache.record_path(key)):
                yield Wheel.of(out, path, (each.cell,))


def _merged(
    old: House,
    found: Sequence[Wheel],
    entries: Mapping[str, Entry],
    cells: Mapping[str, str],
    proven: Sequence[Proven],
) -> House:
    matrices = (each.matrix for each in proven)
    names = dict.fromkeys([*filter(None, old.matrix.split(", ")), *matrices])
    whole = {**old.entries, **entries}
    notes = (note for each in whole.values() if each.resolution for note in each.resolution.notes)
    return House(
        directory=old.directory,
        matrix=", ".join(names),
        python=old.python,
        platform=old.platform,
        wheels=_united(old.wheels, found),
        entries=whole,
        cells={**old.cells, **cells},
        notes=tuple(dict.fromkeys(notes)),
        values={**old.values, **{each.cell: each.values for each in proven if each.values}},
    )


def _reject_renamed(old: Sequence[Wheel], found: Sequence[Wheel]) -> None:
    known = {wheel.file: wheel.sha256 for wheel in old}
    for wheel in found:
        if known.get(wheel.file, wheel.sha256) != wheel.sha256:
            raise InfrastructureError(f"the archive holds another file called {wheel.file}")


def _united(old: Iterable[Wheel], found: Iterable[Wheel]) -> tuple[Wheel, ...]:
    """Return every file once, as it is now, with all the cells that it is for."""
    known = {each.file: each for each in old}
    for each in found:
        before = known.get(each.file, each)
        cells = tuple(dict.fromkeys([*before.cells, *each.cells]))
        known[each.file] = replace(each, cells=cells)
    return tuple(known[file] for file in sorted(known))
