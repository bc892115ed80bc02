"""A copy of the project to run `nox` in, and commands that are timed."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOX = (sys.executable, "-m", "nox")


def copy(to: Path) -> Path:
    """Copy what a run reads into the directory `to`, and return it."""
    for name in ("src", "tests/attention", "lockfiles"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("noxfile.py", "matrix.toml", "pyproject.toml"):
        shutil.copy(ROOT / name, to / name)
    return to


def environment(**more: str) -> dict[str, str]:
    """Return a user's environment: nothing of the session that measures.

    PYTHONDONTWRITEBYTECODE above all would make every child compile all of its modules.
    """
    ours = ("NOX_", "TOX_", "PINPROOF_", "PYTHON")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return {**kept, **more}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a command took, in seconds: on the clock, and of processors in its whole tree."""

    wall: float
    cpu: float
    output: str


def timed(
    words: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None, code: int = 0
) -> Timing:
    """Run a command and say what it took.

    Raises RuntimeError where it does not end with `code`: such a time means nothing.
    """
    before, began = _children(), time.perf_counter()
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=dict(env) if env is not None else environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall, cpu = time.perf_counter() - began, _children() - before
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(map(str, words))}\n{done.stdout[-4000:]}")
    return Timing(wall=wall, cpu=cpu, output=done.stdout)


def _children() -> float:
    """Return the processor seconds of every child that has ended, and of its children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
