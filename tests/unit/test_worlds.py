"""The line between the host and the cell, and what each may import: read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
HOST = sorted((SOURCES / "pinproof").rglob("*.py"))
CELL = sorted((SOURCES / "pinproof_cell").rglob("*.py"))


def imported(path: Path, *, everywhere: bool = True) -> Iterator[str]:
    """Yield the modules that a file imports, in functions too unless told otherwise."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", HOST, ids=lambda path: str(path.relative_to(SOURCES)))
def test_the_host_never_imports_what_is_under_test(path: Path) -> None:
    assert not roots(path) & {"torch", "triton", "vllm", "flash_attn", "numpy", "pinproof_cell"}


@pytest.mark.parametrize("path", CELL, ids=lambda path: str(path.relative_to(SOURCES)))
def test_the_cell_never_imports_the_host_or_anything_that_only_the_host_has(path: Path) -> None:
    allowed = {"torch", "triton", "numpy", "pytest", "pinproof_cell", "vllm", "flash_attn"}
    allowed |= {"flashinfer"}
    assert roots(path) <= allowed | sys.stdlib_module_names


def test_one_module_of_the_host_starts_processes() -> None:
    starters = {"subprocess", "multiprocessing", "pty"}
    assert [path.name for path in HOST if roots(path) & starters] == ["process.py"]
    calls = ("os.system(", "os.popen(", "os.exec", "os.spawn", "os.fork(", "os.posix_spawn")
    for path in HOST:
        # Programs of their own, which become another: the ninja of a build, a command of a cell.
        if path.name not in ("ninja_first.py", "read_only.py"):
            assert not [call for call in calls if call in path.read_text("utf-8")], path.name


def test_what_the_noxfile_imports_needs_nothing_but_nox() -> None:
    """Every nox call pays for it, and nox is all that a fresh machine has."""
    code = "import sys, nox; before = set(sys.modules); import pinproof.sessions;"
    code += "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    others = set(done.stdout.split()) - sys.stdlib_module_names
    assert others <= {"pinproof", "packaging", "nox"}


def test_expansion_judgement_and_plan_touch_neither_disk_nor_clock() -> None:
    pure = ("matrix/expression", "matrix/cell", "plan/plan", "plan/preview")
    judges = (SOURCES / "pinproof" / "judge").glob("*.py")
    for name in (*pure, *(f"judge/{path.stem}" for path in judges)):
        found = roots(SOURCES / "pinproof" / f"{name}.py")
        assert not found & {"os", "time", "datetime", "random", "subprocess", "socket"}, name
