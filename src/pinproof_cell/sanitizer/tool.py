"""compute-sanitizer itself: where it lies, how it is told to look, what it then says."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pinproof_cell.sanitizer import report
from pinproof_cell.sanitizer.report import Report
from pinproof_cell.world import child

#: Its tools, each with what it alone is told. An API call that fails is the program's to handle.
#: memcheck takes an access beyond an allocation for right where another one lies there, and the
#: driver lays small ones side by side: it is to keep 64 KiB, a large tile, free behind each.
TOOLS: dict[str, tuple[str, ...]] = {
    "memcheck": ("--report-api-errors", "no", "--padding", "65536"),
    "racecheck": (),  # shared memory only
    "initcheck": (),
    "synccheck": (),
}
NAME = "compute-sanitizer"
#: What it ends with where it found something, whatever the program ended with.
FOUND = 86

#: An allocator that hands out parts of large blocks hides an access beyond a tensor, and memory
#: that was used before looks initialised.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run of a tool: how it ended, and its report."""

    ended: child.Ended
    report: Report


def find(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the program, or None where it is not there.

    It is looked for on PATH, in CUDA_HOME and CUDA_PATH, in the wheel `nvidia-cuda-sanitizer-api`
    of this environment, and in /usr/local/cuda.
    """
    seen = os.environ if environment is None else environment
    on_path = shutil.which(NAME, path=seen.get("PATH", ""))
    places = [Path(on_path)] if on_path else []
    for path in (*places, *_beside(seen)):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def _beside(environment: Mapping[str, str]) -> Iterator[Path]:
    homes = [environment[name] for name in ("CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    for home in (*homes, *_wheels(), "/usr/local/cuda"):
        for folder in ("bin", NAME):
            yield Path(home, folder, NAME)


def _wheels() -> Iterator[str]:
    for entry in sys.path:
        yield from map(str, Path(entry).glob("nvidia/cu*") if entry else ())


def version(program: Path) -> str:
    """Return the version that `program` says it is, "" where it says none."""
    ended = child.run([str(program), "--version"], target="cuda", timeout=60, python=False)
    found = re.search(r"Version (\S+)", ended.output)
    return found[1] if found else ""


def run(
    program: Path,
    tool: str,
    arguments: Sequence[str],
    *,
    target: str,
    timeout: float,
    scratch: Path,
) -> Ran:
    """Run this Python with `arguments` under `tool` of `program`; `scratch` is a folder."""
    log = scratch / f"{tool}.log"
    log.unlink(missing_ok=True)
    words = [
        *(str(program), "--tool", tool, *TOOLS[tool]),
        # A kernel that is caught ends alone, so that the calls behind it are looked at too.
        *("--destroy-on-device-error", "kernel"),
        # A hundred, as it is, may be one finding many times, and hide another.
        *("--print-limit", "10000"),
        # Compilers that Triton starts run no kernels.
        *("--target-processes", "application-only"),
        *("--show-backtrace", "device", "--error-exitcode", str(FOUND), "--log-file", str(log)),
        *(sys.executable, *arguments),
    ]
    ended = child.run(words, target=target, timeout=timeout, python=False, extra=ENVIRONMENT)
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return Ran(ended=ended, report=report.parse(text))
