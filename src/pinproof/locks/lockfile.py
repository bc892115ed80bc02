"""The committed lock of a matrix: ``lockfiles/MATRIX.lock.toml``, and a file of pins per cell.

The TOML file says which value every moving axis stands for and which file of pins each cell has,
per Python and platform. The pins are in the form of ``pip --require-hashes``, without an address.
Cells with the same pins share a file, and its name holds the digest of its contents, so that a
lock is replaced whole or not at all: new files first, then the TOML file, then old files go.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pinproof.errors import ConfigurationError
from pinproof.evidence.evidence import digest_of
from pinproof.evidence.store import write_text
from pinproof.locks import lock as locks
from pinproof.locks.fixed import Fixed
from pinproof.locks.lock import Lock, Request, build_of_torch
from pinproof.matrix import schema
from pinproof.matrix.cell import Cell
from pinproof.matrix.schema import Form, Where, option

SCHEMA = 1

#: A cell takes about 350 bytes, and a matrix may have a hundred thousand on purpose.
LARGEST = 100_000_000

#: Where the locks lie, beside the matrix file.
DIRECTORY = "lockfiles"

#: A cell with the Python and the platform that it is locked for.
Place = tuple[str, str, str]

#: A Python and a platform that cells are locked for, "3.12" and "x86_64-manylinux_2_35".
Target = tuple[str, str]

_HEADING = """\
# The lock of the matrix {matrix}. Written by `nox -s lock`: not to be edited by hand.
"""

_SHA256 = Form(r"[0-9a-f]{64}|", "a sha256")
_FILE = Form(r"[\w.-]*", "the name of a file")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one cell installs on one Python and platform, or why no versions fit.

    ``request`` is the digest of what was asked, ``file`` holds the pins of the wheels.
    """

    cell: str = option(about="the id of the cell")
    python: str = option(about="the Python")
    platform: str = option(about="the platform, a name of uv")
    request: str = option(about="the digest of what was asked", form=_SHA256)
    file: str = option(about="the file of pins", default="", form=_FILE)
    sources: tuple[str, ...] = option(about="the source archives that are built", default=())
    conflict: str = option(about="why no versions fit", default="")

    @property
    def place(self) -> Place:
        """What it is for."""
        return self.cell, self.python, self.platform


@dataclass(frozen=True, kw_only=True)
class _Document:
    """The TOML file."""

    schema: int = option(about="the schema of this file")
    matrix: str = option(about="the matrix")
    made: str = option(about="when it was made")
    targets: tuple[str, ...] = option(
        about="the Pythons and platforms that it is for",
        default=(),
        form=Form(r"\S+ \S+", "a Python and a platform"),
    )
    content: str = option(about="the digest of the rest", form=_SHA256)
    value: tuple[Fixed, ...] = option(about="what moving values stand for", default=())
    lock: tuple[Entry, ...] = option(about="what cells install", default=())


@dataclass(frozen=True, kw_only=True)
class Lockfile:
    """The lock of a matrix. ``locks`` holds the pins by the name of their file."""

    matrix: str
    made: str = ""
    targets: tuple[Target, ...] = ()
    values: tuple[Fixed, ...] = ()
    entries: tuple[Entry, ...] = ()
    locks: Mapping[str, Lock] = field(default_factory=dict)

    def entry(self, cell: str, python: str, platform: str) -> Entry | None:
        """Return what is locked for a cell on that Python, on a platform of the same machine.

        Whether the very wheels fit is looked at when the cell is resolved.
        """
        return self._entries.get((cell, python, self._nearest(python, platform)))

    @functools.cached_property
    def _entries(self) -> Mapping[Place, Entry]:
        return {each.place: each for each in self.entries}

    @functools.cached_property
    def _locked(self) -> Collection[Target]:
        """The Pythons and platforms that anything is locked for, in the order of the file."""
        known: tuple[Entry | Fixed, ...] = (*self.entries, *self.values)
        return dict.fromkeys((each.python, each.platform) for each in known)

    def _nearest(self, python: str, platform: str) -> str:
        """Return the platform that stands for `platform`: that very one, else one of its machine.

        Values and pins are of one platform, or they would not go together.
        """
        if (python, platform) in self._locked:
            return platform
        same = (place for of, place in self._locked if of == python and _is_like(place, platform))
        return next(same, platform)

    def recall(self, cell: str, request: Request, platform: str) -> Lock | None:
        """Return the lock of `cell` if it was made for this very `request`, else None."""
        entry = self.entry(cell, request.python, platform)
        if entry is None or not entry.file or entry.request != key_without_platform(request):
            return None
        sources = tuple(locks.source(each) for each in entry.sources)
        return replace(self.locks[entry.file], sources=sources)

    def fixed(self, cell: Cell, python: str, platform: str) -> tuple[Fixed, ...]:
        """Return what the moving values of `cell` stand for, as far as it is locked."""
        build = build_of_torch(cell) or ""
        here = (build, python, self._nearest(python, platform))
        return tuple(
            each
            for each in self.values
            if cell.axis(each.axis) == each.asked
            and (not each.build or (each.build, each.python, each.platform) == here)
        )


def key_without_platform(request: Request) -> str:
    """Return what a request is known by in a lock file, whichever platform it is made for."""
    return digest_of({**request.inputs(), "platform": None})


def path_of(matrix_file: Path, matrix: str) -> Path:
    """Return where the lock of a matrix lies."""
    return matrix_file.parent / DIRECTORY / f"{matrix}.lock.toml"


def load(path: Path) -> Lockfile | None:
    """Read a lock file with its pins; None where there is none.

    Raises ConfigurationError for one of a later schema, one that was edited by hand, and one that
    lacks a file of pins.
    """
    if not path.exists():
        return None
    where = Where(f"{DIRECTORY}/{path.name}")
    command = f"nox -s lock -- --matrix {_matrix_of(path)}"
    again = f"restore it, or delete {DIRECTORY}/{path.name} and run: {command}"
    raw = schema.read_toml(path, LARGEST)
    if raw.get("schema") != SCHEMA:
        raise where.error(
            f"is of schema {str(raw.get('schema', 'none'))[:20]}; this version reads {SCHEMA}",
            remedy="update Pinproof, or make the lock anew with this version",
        )
    try:
        document = schema.convert(_Document, raw, where)
    except ConfigurationError as error:
        raise ConfigurationError(error.what, remedy=again) from None
    if document.content != _content(document):
        raise where.error(
            "was edited by hand, or merged: its contents are not those of its digest",
            remedy=again,
        )
    names = {entry.file for entry in document.lock if entry.file}
    return Lockfile(
        matrix=document.matrix,
        made=document.made,
        targets=tuple((each.split()[0], each.split()[1]) for each in document.targets),
        values=document.value,
        entries=document.lock,
        locks={name: _read_pins(path, name, again) for name in sorted(names)},
    )


def _read_pins(path: Path, name: str, remedy: str) -> Lock:
    place = path.parent / _matrix_of(path) / name
    shown = f"{DIRECTORY}/{_matrix_of(path)}/{name}"
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ConfigurationError(
            f"{shown} is missing or unreadable; {path.name} names it", remedy=remedy
        ) from None
    if digest(text) != name.split(".")[-2]:
        raise ConfigurationError(
            f"{shown} was edited by hand: its contents are not those of its name", remedy=remedy
        )
    return locks.parse(text)


def save(lockfile: Lockfile, path: Path) -> None:
    """Write the lock with its pins, whole or not at all, and remove the pins that it had before.

    Other files that lie there are left alone. Raises InfrastructureError where the disk refuses;
    then the old lock stands.
    """
    directory = path.parent / lockfile.matrix
    before = _listed(path)
    for name, lock in lockfile.locks.items():
        write_text(directory / name, lock.text())  # what lies there may be damaged
    write_text(path, text_of(lockfile))
    for name in before - lockfile.locks.keys():
        with contextlib.suppress(OSError):  # no harm: nothing names it any more
            (directory / name).unlink()


def _listed(path: Path) -> set[str]:
    """Return the files of pins that the lock in `path` names, as far as it can be read."""
    try:
        entries = schema.read_toml(path, LARGEST).get("lock", []) if path.exists() else []
        names = {str(each.get("file", "")) for each in entries}
    except (ConfigurationError, AttributeError, TypeError):
        return set()
    return {name for name in names if name == Path(name).name and name.endswith(".txt")}


def put_together(
    made: Lockfile, values: Iterable[Fixed], found: Iterable[tuple[Entry, Lock | None]]
) -> Lockfile:
    """Return `made` with these contents; cells with the same pins share a file of the first."""
    names: dict[str, str] = {}
    held: dict[str, Lock] = {}
    entries = []
    for entry, lock in found:
        file, sources = "", entry.sources
        if lock is not None:
            sources = tuple(map(str, lock.sources)) or sources
            lock = replace(lock, sources=())  # cells that build something share files too
            text = lock.text()
            file = names.setdefault(text, f"{entry.cell}.{digest(text)}.txt")
            held[file] = lock
        entries.append(replace(entry, file=file, sources=sources))
    return replace(made, values=tuple(values), entries=tuple(entries), locks=held)


def digest(text: str) -> str:
    """Return the part of the name of a file of pins that its contents decide."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def text_of(lockfile: Lockfile) -> str:
    """Return the TOML file."""
    document = _Document(
        schema=SCHEMA,
        matrix=lockfile.matrix,
        made=lockfile.made,
        targets=tuple(" ".join(each) for each in lockfile.targets),
        content="",
        value=lockfile.values,
        lock=lockfile.entries,
    )
    lines = [_HEADING.format(matrix=lockfile.matrix)]
    lines += _table(replace(document, content=_content(document)))
    for name, tables in (("value", document.value), ("lock", document.lock)):
        for table in tables:
            lines += ["", f"[[{name}]]", *_table(table)]
    return "\n".join(lines) + "\n"


def _content(document: _Document) -> str:
    """Return the digest of all that a lock file says."""
    return digest_of(
        {
            "schema": document.schema,
            "matrix": document.matrix,
            "made": document.made,
            "targets": list(document.targets),
            "value": [_set(each) for each in document.value],
            "lock": [_set(each) for each in document.lock],
        }
    )


def _set(table: Any) -> dict[str, Any]:
    """Return the keys of a table that are not at their default, with lists for tuples."""
    values = {each.name: getattr(table, each.name) for each in fields(table)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value not in ("", ())
    }


def _table(table: Any) -> Iterator[str]:
    for name, value in _set(table).items():
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            continue  # tables of their own
        yield f"{name} = {_toml(value)}"


def _toml(value: str | int | list[str]) -> str:
    """Write a string, a number or a list of strings; what JSON escapes TOML reads, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_like(platform: str, other: str) -> bool:
    """Say if two platforms are of the same machine: x86_64-manylinux_2_28, x86_64."""
    return platform.partition("-")[0] == other.partition("-")[0]


def _matrix_of(path: Path) -> str:
    return path.name.removesuffix(".lock.toml")
