"""A matrix whose cells install nothing, and machines: the whole way in seconds, with real nox."""

from __future__ import annotations

import sys
from pathlib import Path

from pinproof.matrix import matrixfile, selection
from pinproof.matrix.selection import Selection
from pinproof.options import Options
from pinproof.run.machine import Machine

PYTHON = "{}.{}".format(*sys.version_info[:2])

CPU = Machine(
    target="cpu", gpu="", driver="", cpu="Some Processor", cores=2, memory_gib=16, platform="Linux"
)
H100 = Machine(
    target="sm_90",
    gpu="NVIDIA H100",
    driver="580.1",
    cpu="x",
    cores=8,
    memory_gib=64,
    platform="Linux",
)

# Everything that a cell would install is left out, so that its lock is empty; the patch releases
# of one Python make cells that differ and yet ask for the same.
TEXT = """
format = 1
[targets.cpu]
[[matrix]]
name = "empty"
target = "cpu"
default = true
checks = [{checks}]
axes = {{ torch = ["2.13.0"], python = [{pythons}] }}

[[matrix.overrides]]
select = 'target == "cpu"'
without = ["torch", "triton", "numpy", "pytest"]
requirements = [{requirements}]
"""


def write(
    directory: Path, *, count: int = 2, checks: tuple[str, ...] = (), requirements: str = ""
) -> Path:
    """Write the matrix file into `directory` and return its path."""
    pythons = ", ".join(f'"{PYTHON}.{number}"' for number in range(count))
    named = ", ".join(f'"{check}"' for check in checks)
    path = directory / "matrix.toml"
    path.write_text(
        TEXT.format(checks=named, pythons=pythons, requirements=requirements), encoding="utf-8"
    )
    return path


def options(directory: Path, **more: object) -> Options:
    """Return options that keep everything below `directory` and need no network."""
    given: dict[str, object] = {"offline": True, **more}
    return Options(
        matrix_file=directory / "matrix.toml",
        store=directory / ".pinproof",
        **given,  # type: ignore[arg-type]
    )


def chosen(directory: Path, **more: object) -> Selection:
    """Return the cells of the matrix file in `directory` on a machine without a GPU."""
    return selection.make(options(directory, **more), CPU)


def shipped() -> matrixfile.MatrixFile:
    """Return the matrix file of the project."""
    return matrixfile.load(Path(__file__).parents[2] / "matrix.toml")
