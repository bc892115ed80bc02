"""Where runs leave their files: evidence, locks, logs, results, all under one directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from pinproof.errors import InfrastructureError
from pinproof.evidence.evidence import Evidence
from pinproof.plan.stage import Stage

#: A digest in a file name: long enough to be unique in a store, short enough to read.
SHORT = 16


class Store:
    """The directory of a checkout in which everything that was seen is kept.

    Every file is written whole or not at all, so that an interrupted run leaves no half record.
    Paths are made of ids that the loader has checked, and of digests.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def evidence_path(self, cell: str, stage: Stage, digest: str) -> Path:
        """Return the file of the evidence with that digest."""
        return self.root / "evidence" / cell / f"{stage}-{digest[:SHORT]}.json"

    def log_path(self, cell: str, stage: Stage) -> Path:
        """Return the file that the stage's output goes to."""
        return self.root / "logs" / cell / f"{stage}.log"

    @property
    def builds(self) -> Path:
        """The directory of the cache of wheels that were built; see `pinproof.builds.cache`."""
        return self.root / "builds"

    @property
    def inodes(self) -> Path:
        """The file of what `pinproof.run.integrity` has read, whichever cell it belongs to."""
        return self.root / "verified" / "files.json"

    @property
    def conda(self) -> Path:
        """The directory of conda packages, as archives and unpacked; cells have links into it."""
        return self.root / "conda"

    def fuzz_dir(self, cell: str, name: str) -> Path:
        """Return the directory of what a search found in a cell, its scripts among it."""
        return self.root / "fuzz" / cell / name

    def results_dir(self, matrix: str) -> Path:
        """Return the directory of the table and results.json of a matrix."""
        return self.root / "results" / matrix

    def remember(self, matrix: str, backend: str | None, python: str | None) -> None:
        """Keep the back end that the last run of a matrix was given, and its interpreter."""
        known = {"backend": backend, "python": python}
        write_json(self.results_dir(matrix) / "options.json", known)

    def remembered(self, matrix: str) -> tuple[str | None, str | None]:
        """Return the back end and interpreter of the last run of a matrix, as they were given."""
        known = read_json(self.results_dir(matrix) / "options.json")
        if not isinstance(known, dict):
            return None, None
        return known.get("backend"), known.get("python")

    def remember_commits(self, cell: str, known: Mapping[str, Mapping[str, str]]) -> None:
        """Keep which commits a cell was last run with: by axis what was asked, and the commit."""
        before = self.commits(cell)
        if (now := {**before, **known}) != before:
            write_json(self.root / "evidence" / cell / "commits.json", now)

    def commits(self, cell: str) -> Mapping[str, Mapping[str, str]]:
        """Return what `remember_commits` kept of a cell."""
        known = read_json(self.root / "evidence" / cell / "commits.json")
        found = known.items() if isinstance(known, dict) else ()
        return {
            axis: told
            for axis, told in found
            if isinstance(told, dict) and told.keys() == {"asked", "commit"}
        }

    def scratch(self, cell: str, stage: Stage) -> Path:
        """Return the directory in which a running step exchanges files with its child."""
        return self.root / "steps" / cell / str(stage)

    def save(self, record: Evidence) -> None:
        """Write `record` under its digest. Raises InfrastructureError where the disk refuses.

        A run that was stopped, or that the machine failed, takes nothing from what is known: it
        does not replace a final record of the same inputs.
        """
        if not record.is_final:
            known = self.load(record.cell, record.stage, record.digest)
            if known is not None and known.is_final:
                return
        write_json(self.evidence_path(record.cell, record.stage, record.digest), record.to_json())

    def load(self, cell: str, stage: Stage, digest: str) -> Evidence | None:
        """Return the evidence with that digest; None where there is none that can be trusted.

        A build whose wheel is gone has to be done again, whatever was recorded.
        """
        record = self._read(self.evidence_path(cell, stage, digest))
        if record is None or record.digest != digest:
            return None
        if stage is Stage.BUILD and "wheel" in record.data:
            wheel = self.builds / "wheels" / record.data["sha256"] / record.data["wheel"]
            return record if wheel.is_file() else None
        return record

    def is_damaged(self, cell: str, stage: Stage, digest: str) -> bool:
        """Say if there is a record with that digest, and it cannot be trusted."""
        path = self.evidence_path(cell, stage, digest)
        record = self._read(path)
        return path.is_file() and (record is None or record.digest != digest)

    def latest(self, cell: str, stage: Stage) -> Evidence | None:
        """Return the newest evidence of that stage, whatever its inputs were."""
        found = self.root.joinpath("evidence", cell).glob(f"{stage}-*.json")
        records = [record for path in found if (record := self._read(path)) is not None]
        return max(records, key=lambda record: record.started, default=None)

    def nearest(self, stage: Stage, inputs: Mapping[str, Any]) -> Evidence | None:
        """Return the evidence of that stage, of any owner, whose inputs differ least from `inputs`.

        Only evidence of the same project counts. Of equals the newest is returned.
        """
        found = self.root.glob(f"evidence/*/{stage}-*.json")
        records = [record for path in found if (record := self._read(path)) is not None]
        of_project = [
            each for each in records if each.inputs.get("project") == inputs.get("project")
        ]

        def order(record: Evidence) -> tuple[int, str]:
            same = sum(record.inputs.get(name) == value for name, value in inputs.items())
            return same, record.started

        return max(of_project, key=order, default=None)

    @staticmethod
    def _read(path: Path) -> Evidence | None:
        # A damaged or foreign record is no evidence: the stage simply runs again.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return Evidence.from_json(json.loads(path.read_text(encoding="utf-8")))
        return None

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the store for one run. Raises InfrastructureError where another run holds it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / "run.lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise InfrastructureError(
                f"another run is using {self.root}",
                cause="two runs at once would measure each other",
                remedy="wait for it to end, or give this one its own --store DIR",
            ) from None
        except OSError as error:
            raise disk_error(self.root, error) from None
        try:
            yield
        finally:
            lock.release()


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `path` whole or not at all, and where `durable` so that a power cut cannot undo it.

    Raises InfrastructureError where the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
    except OSError as error:
        raise disk_error(path, error) from None


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` as JSON, whole or not at all; see `write_text`."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    """Return the JSON in `path`, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sha256(path: Path) -> str:
    """Return the sha256 of a file. Raises OSError where it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def disk_error(path: Path, error: OSError) -> InfrastructureError:
    """Say what the disk refused, in the words that the user can act on."""
    return InfrastructureError(
        f"cannot write {path}: {error.strerror or error}",
        cause="the disk is full, read-only, or belongs to another user",
        remedy="free space, or choose another place with --store DIR",
    )
