"""A directory of wheels for a machine without a network, with the locks that they are for.

Beside the wheels lies ``wheelhouse.json`` with their sha256, the cells that each is for, and
every lock. So the machine without a network takes the very locks that were made where the
indexes were, and a combination that no index could satisfy stays a conflict there. In ``builds``
lie wheels that were built from source, as `pinproof.builds.cache` keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pinproof.errors import ConfigurationError, ResolveError
from pinproof.evidence.evidence import digest_of
from pinproof.evidence.store import sha256, write_json
from pinproof.locks.fixed import Fixed
from pinproof.locks.lock import Request
from pinproof.locks.resolution import Resolution

MANIFEST = "wheelhouse.json"
BUILDS = "builds"
SCHEMA = 1

#: Who a wheel is for, where it is for Pinproof itself and not for a cell.
HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The answer to one request: a resolution, or why there is none."""

    key: str
    excludes: tuple[str, ...]
    resolution: Resolution | None = None
    conflict: str = ""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A file of the house: its size in bytes, its digest, the cells (or "host") that it is for.

    ``file`` is its path below the house.
    """

    file: str
    sha256: str
    size: int
    cells: tuple[str, ...]

    @classmethod
    def of(cls, house: Path, path: Path, cells: tuple[str, ...] = ()) -> Wheel:
        """Return what the file `path` below `house` is. Raises OSError where it is not there."""
        size = path.stat().st_size
        return cls(file=str(path.relative_to(house)), sha256=sha256(path), size=size, cells=cells)

    def to_json(self) -> dict[str, Any]:
        """Return the file as JSON values."""
        return {**asdict(self), "cells": list(self.cells)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Wheel:
        """Read what `to_json` wrote."""
        return cls(**{**raw, "cells": tuple(raw["cells"])})


@dataclass(frozen=True, kw_only=True)
class House:
    """A wheelhouse on disk. ``cells`` says which entry answers which cell, by key.

    ``values`` are what the moving values of a cell stood for, by cell: a lock that knew it may
    be renewed since, or be elsewhere. ``beside`` are the files that no resolution names: wheels
    that were built with their records, conda packages, pins.
    """

    directory: Path = field(compare=False)
    matrix: str
    python: str
    platform: str
    wheels: tuple[Wheel, ...]
    entries: Mapping[str, Entry]
    cells: Mapping[str, str]
    notes: tuple[str, ...] = ()
    values: Mapping[str, tuple[Fixed, ...]] = field(default_factory=dict)
    beside: tuple[Wheel, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)

    def recall(self, request: Request) -> Resolution | None:
        """Return what was resolved for `request`, without the packages that are excluded here.

        None where nothing was, or where it left out a package that is not there after all;
        then the wheels at hand are all there is to resolve from. Raises ResolveError with
        ``conflict`` where the indexes were asked and nothing fitted.
        """
        entry = self.entries.get(key_without_machine(request))
        if entry is None or not set(entry.excludes) <= set(request.excludes):
            return None
        if entry.resolution is None:
            raise ResolveError(entry.conflict, conflict=True)
        lock, left_out = entry.resolution.lock, set(request.excludes)
        here = replace(
            lock,
            platform=request.platform or "",
            product=tuple(pin for pin in lock.product if pin.name not in left_out),
            harness=tuple(pin for pin in lock.harness if pin.name not in left_out),
        )
        return replace(entry.resolution, lock=here, log=f"from the wheelhouse\n{here.text()}")


def key_without_machine(request: Request) -> str:
    """Return what a request is known by in a wheelhouse, whichever machine it is made on.

    Left out are the platform and what is there already: the excludes.
    """
    inputs = request.inputs()
    del inputs["platform"], inputs["excludes"]
    return digest_of(inputs)


def load(directory: Path) -> House:
    """Read the wheelhouse in `directory`, and see that no wheel is missing or cut off.

    Raises ConfigurationError where it is none, is of a later format, or lacks a wheel.
    """
    house = read(directory)
    for wheel in house.wheels:
        path = directory / wheel.file
        if not path.is_file() or path.stat().st_size != wheel.size:
            raise ConfigurationError(
                f"the wheelhouse {directory} lacks {wheel.file}, or has another one",
                remedy="copy the directory again, whole, or collect its cells again",
            )
    return house


def read(directory: Path) -> House:
    """Read what the wheelhouse in `directory` should hold, whether it does or not.

    Raises ConfigurationError where it is none, or is of a later format.
    """
    try:
        raw = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise ConfigurationError(
                f"{directory / MANIFEST} is of schema {raw['schema']}; this version reads {SCHEMA}"
            )
        return _from_json(raw, directory)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{directory} is no wheelhouse: its {MANIFEST} is missing or damaged",
            remedy="copy the directory again, whole, or make it: scripts/make_wheelhouse.py"
            " collects a matrix, nox -s archive safe cells",
        ) from None


def save(house: House) -> None:
    """Write the manifest of `house` beside its wheels."""
    write_json(house.directory / MANIFEST, _to_json(house))


def _to_json(house: House) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "matrix": house.matrix,
        "python": house.python,
        "platform": house.platform,
        "notes": list(house.notes),
        "cells": dict(house.cells),
        "values": {cell: [asdict(each) for each in known] for cell, known in house.values.items()},
        "locks": {
            key: {
                "excludes": list(entry.excludes),
                "conflict": entry.conflict,
                "resolution": entry.resolution.to_json() if entry.resolution else None,
            }
            for key, entry in house.entries.items()
        },
        "files": [each.to_json() for each in house.wheels],
        "beside": [each.to_json() for each in house.beside],
    }


def _from_json(raw: Mapping[str, Any], directory: Path) -> House:
    entries = {
        key: Entry(
            key=key,
            excludes=tuple(each["excludes"]),
            conflict=each["conflict"],
            resolution=Resolution.from_json(each["resolution"]) if each["resolution"] else None,
        )
        for key, each in raw["locks"].items()
    }
    return House(
        directory=directory,
        matrix=raw["matrix"],
        python=raw["python"],
        platform=raw["platform"],
        wheels=tuple(map(Wheel.from_json, raw["files"])),
        entries=entries,
        cells=raw["cells"],
        beside=tuple(map(Wheel.from_json, raw.get("beside", ()))),
        notes=tuple(raw["notes"]),
        values={
            cell: tuple(Fixed(**{**each, "notes": tuple(each["notes"])}) for each in known)
            for cell, known in raw.get("values", {}).items()
        },
    )
