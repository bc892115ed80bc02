"""A copy of the project in which the real `nox` runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

#: The one cell that is proven here: the newest triton, the others differ in nothing that a test
#: of the way asks for.
CELL = "cpu-ccda2b"

#: Seconds for any one nox call; the longest here proves a cell in about one minute.
PATIENCE = 600


@dataclass(frozen=True)
class Ended:
    """How a nox call ended; `out` is standard output, `err` standard error."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Project:
    """A checkout in a directory of its own."""

    root: Path
    first: list[Ended] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        """What a user's shell has: nothing of the session that runs these tests."""
        ours = ("NOX_", "PINPROOF_", "PYTHONPATH", "PYTEST_", "COVERAGE_")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        return {**kept, **more}

    def nox(self, *words: str, **env: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "nox", *words],
            cwd=self.root,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def matrix(self, *words: str, **env: str) -> Ended:
        return self.nox("-s", "matrix", "--", *words, **env)

    @property
    def store(self) -> Path:
        return self.root / ".pinproof"

    def results(self, matrix: str = "cpu", store: Path | None = None) -> dict[str, Any]:
        path = (store or self.store) / "results" / matrix / "results.json"
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    def cell(self, name: str) -> dict[str, Any]:
        """Return what results.json says of one cell; it speaks of every cell of the matrix."""
        cells: list[dict[str, Any]] = self.results()["cells"]
        return next(cell for cell in cells if cell["id"] == name)

    def evidence(self, store: Path | None = None) -> dict[str, int]:
        """Return every record's name, which holds its digest, with the time it was written."""
        root = (store or self.store) / "evidence"
        return {
            str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*.json")
        }

    def python(self, cell: str) -> Path:
        return self.root / ".nox" / cell / "bin" / "python"


def table(text: str) -> list[str]:
    """Return the table and what stands below it, without where the files went."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("cell "))
    end = next(number for number, line in enumerate(lines) if line.startswith("logs:"))
    return lines[start:end]


def row_of(ended: Ended, cell: str) -> str:
    return next(line for line in table(ended.out) if line.startswith(cell))


def copy_project(
    to: Path, names: Sequence[str] = ("src", "tests/attention", "lockfiles")
) -> Project:
    """Copy what a run reads, so that an edit of the checkout cannot change it midway."""
    for name in names:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("noxfile.py", "matrix.toml", "pyproject.toml"):
        shutil.copy(ROOT / name, to / name)
    return Project(to)
