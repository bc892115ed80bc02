"""The wheels that were built, by what they hold, and the record of how each came to be.

    keys/<key>.json        the record: what was read, with which tools, which wheel came of it
    wheels/<sha256>/*.whl  the wheels; two builds that give the same bytes share one
    work/<key>/            the tree of a build that is under way, or was killed: it goes on there
    locks/<key>.lock       held by the process that builds
    quarantine/            what turned out to be other bytes than those that were built

A record is written after its wheel is in its place, whole or not at all, so that an interrupted
build leaves nothing that could be taken for a result. A wheel is hashed whenever it is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pinproof.errors import InfrastructureError
from pinproof.evidence.store import SHORT, disk_error, read_json, sha256, write_json

SCHEMA = 1
DAY = 86400.0

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a wheel came to be.

    ``inputs`` are what the key names, ``tools`` the versions of what was used, ``without`` the
    features that were left out, ``libraries`` the audit of every shared library in the wheel (see
    `pinproof.audit.library`), ``log`` the sha256 of the build's output, ``seconds`` its wall time,
    ``units`` the seconds that each translation unit took.
    """

    key: str
    wheel: str
    sha256: str
    size: int
    inputs: Mapping[str, Any]
    tools: Mapping[str, str]
    without: tuple[str, ...]
    libraries: tuple[Mapping[str, Any], ...]
    log: str
    jobs: int
    seconds: float
    built: str
    units: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, raw: Any) -> Record:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        values = dict(raw)
        if values.pop("schema") != SCHEMA:
            raise ValueError("a record of another schema")
        values["without"] = tuple(values["without"])
        values["libraries"] = tuple(values["libraries"])
        record = cls(**values)
        # They become paths, and a record may come from an archive that somebody else has made.
        if not all(_SHA256.fullmatch(each) for each in (record.key, record.sha256)):
            raise ValueError("a record whose key or wheel is no sha256")
        if record.wheel != Path(record.wheel).name or not record.wheel.endswith(".whl"):
            raise ValueError("a record whose wheel is no file name")
        return record


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was removed: trees of builds, wheels, files in quarantine; and bytes in all."""

    trees: int
    wheels: int
    quarantined: int
    size: int


class Cache:
    """A directory of built wheels that several processes use at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def wheel_path(self, record: Record) -> Path:
        """Return where the wheel of a record lies."""
        return self.root / "wheels" / record.sha256 / record.wheel

    def record_path(self, key: str) -> Path:
        """Return the file of the record of `key`."""
        return self.root / "keys" / f"{key[:SHORT]}.json"

    def work_dir(self, key: str) -> Path:
        """Return the directory in which the build of `key` goes on."""
        return self.root / "work" / key[:SHORT]

    def records(self) -> list[Record]:
        """Return every record, the newest first."""
        found = [self._read(path) for path in self.root.glob("keys/*.json")]
        known = [record for record in found if record is not None]
        return sorted(known, key=lambda record: record.built, reverse=True)

    def find(self, key: str) -> Record | None:
        """Return the record of `key` if its wheel is the one that was built.

        A wheel that is not goes into quarantine, with its record: it has to be built anew.
        """
        record = self._read(self.record_path(key))
        if record is None or record.key != key:
            return None
        if self.is_whole(record):
            with contextlib.suppress(OSError):
                os.utime(self.record_path(key))
            return record
        self.quarantine(record)
        return None

    def is_whole(self, record: Record) -> bool:
        """Say if the wheel of a record is there, with the bytes that were built."""
        path = self.wheel_path(record)
        try:
            return sha256(path) == record.sha256
        except OSError:
            return False

    def adopt(self, key: str, other: Cache) -> Record | None:
        """Take the wheel of `key` over from another cache, unless it is here; return its record.

        None where neither has it with the bytes that were built. `other` is left as it is.
        """
        if (known := self.find(key)) is not None:
            return known
        record = self._read(other.record_path(key))
        if record is None or record.key != key or not other.is_whole(record):
            return None
        partial = self.root / f"{key[:SHORT]}-{os.getpid()}.partial"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(other.wheel_path(record), partial)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise disk_error(partial, error) from None
        return self.publish(record, partial)

    def quarantine(self, record: Record) -> None:
        """Put a wheel that is not the one that was built aside, and forget its record."""
        path = self.wheel_path(record)
        try:
            if path.is_file():
                aside = self.root / "quarantine"
                aside.mkdir(parents=True, exist_ok=True)
                path.replace(aside / f"{record.key[:SHORT]}-{record.wheel}")
            self.record_path(record.key).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(path, error) from None

    def publish(self, record: Record, wheel: Path) -> Record:
        """Move a wheel that was built to its place, then write its record; return that."""
        place = self.wheel_path(record)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            wheel.replace(place)
        except OSError as error:
            raise disk_error(place, error) from None
        write_json(self.record_path(record.key), record.to_json())
        return record

    @contextlib.contextmanager
    def exclusive(
        self, key: str, *, wait: bool = True, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[int]:
        """Hold the build of `key`, waiting for its holder; yield the lock's file descriptor.

        `waiting` is called where it is held, before the wait.

        Whoever inherits the descriptor holds the lock too: a compiler that outlives its builder
        must not meet the next one in the same tree. Raises InfrastructureError where `wait` is
        False and another process holds it, or where the disk refuses.
        """
        path = self.root / "locks" / f"{key[:SHORT]}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(path, error) from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise InfrastructureError(
                        f"another process is building {key[:SHORT]}", remedy="wait for it to end"
                    ) from None
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def prune(self, *, days: float) -> Pruned:
        """Remove the trees of builds that nobody holds, and wheels not used for `days` days."""
        trees = [path for path in self._dirs("work") if self._is_free(path.name)]
        stale = time.time() - days * DAY
        old = [path for path in self.root.glob("keys/*.json") if path.stat().st_mtime < stale]
        for path in old:
            path.unlink(missing_ok=True)
        kept = {record.sha256 for record in self.records()}
        wheels = [path for path in self._dirs("wheels") if path.name not in kept]
        aside = list(self.root.glob("quarantine/*"))
        size = sum(map(_size, (*trees, *wheels, *aside)))
        for path in (*trees, *wheels):
            shutil.rmtree(path, ignore_errors=True)
        for path in aside:
            path.unlink(missing_ok=True)
        return Pruned(trees=len(trees), wheels=len(wheels), quarantined=len(aside), size=size)

    def _is_free(self, key: str) -> bool:
        try:
            with self.exclusive(key, wait=False):
                return True
        except InfrastructureError:
            return False

    def _dirs(self, name: str) -> list[Path]:
        return [path for path in self.root.glob(f"{name}/*") if path.is_dir()]

    @staticmethod
    def _read(path: Path) -> Record | None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return Record.from_json(read_json(path))
        return None


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    files = (each for each in path.rglob("*") if each.is_file() and not each.is_symlink())
    return sum(each.stat().st_size for each in files)
