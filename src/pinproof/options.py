"""What a user asked of a run, resolved against where it was asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pinproof.errors import ConfigurationError
from pinproof.plan.stage import Stage
from pinproof.run.machine import Machine


def root() -> Path:
    """Return the project directory: PINPROOF_ROOT, which the noxfile sets, or the current one."""
    return Path(os.environ.get("PINPROOF_ROOT") or Path.cwd())


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run. None and () stand for "not given"."""

    matrix_file: Path
    store: Path
    matrix: str | None = None
    cells: tuple[str, ...] = ()
    select: str = ""
    until: Stage | None = None
    backend: str | None = None
    python: str | None = None
    jobs: int | None = None
    dry_run: bool = False
    fresh: bool = False
    sanitize: bool = False
    offline: bool = False
    wheelhouse: Path | None = None

    def __post_init__(self) -> None:
        if self.wheelhouse is not None and not self.wheelhouse.is_dir():
            raise ConfigurationError(
                f"--wheelhouse {self.wheelhouse} is not a directory",
                remedy="make one with scripts/make_wheelhouse.py --matrix NAME --out DIR",
            )
        if self.jobs is not None and self.jobs < 1:
            raise ConfigurationError("--jobs must be 1 or more")

    @property
    def envdir(self) -> Path:
        """The directory of the cells' environments: nox's own, or another store's own."""
        usual = self.store.name == ".pinproof"
        return self.store.parent / ".nox" if usual else self.store / "nox"

    def shown(self, matrix: str, count: int, machine: Machine, jobs: int) -> Iterator[str]:
        """Yield every resolved option as a line."""
        until = f", until {self.until}" if self.until else ""
        until += ", with compute-sanitizer" if self.sanitize else ""
        chosen = ", ".join([*self.cells, *([self.select] if self.select else [])]) or "all"
        source = f"offline, wheelhouse {self.wheelhouse}" if self.wheelhouse else "package index"
        if self.offline and not self.wheelhouse:
            source = "offline, what lies in uv's cache"
        yield f"machine    {machine}"
        yield f"matrix     {matrix} of {self.matrix_file}"
        yield f"cells      {count} ({chosen}){until}"
        yield f"back end   {self.backend or 'as the matrix says'}"
        yield f"wheels     {source}"
        yield f"evidence   {self.store}{', everything measured again' if self.fresh else ''}"
        yield f"jobs       {jobs}"
