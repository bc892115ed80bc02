"""Tests of the noxfile as nox sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from wheels import make_wheel

from pinproof import cli, sessions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def listed() -> dict[str, tuple[str, str]]:
    """Return the sessions that `nox -l` lists: by name the mark and the description."""
    words = ["-m", "nox", "-f", str(ROOT / "noxfile.py"), "-l"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if line[:2] in ("* ", "- ")]
    return {name: (mark, rest.removeprefix("-> ")) for mark, name, rest in lines}


def test_every_cell_is_a_session_beside_the_named_ones(
    listed: dict[str, tuple[str, str]],
) -> None:
    cells = {
        cell.id: f"{cell.matrix}: {cell.label}" for cell in sessions.cells(ROOT / "matrix.toml")
    }
    assert {name: listed[name][1] for name in cells} == cells
    assert {"host", "matrix", "report", "pins", "tests", "bench"} <= listed.keys() - cells


def test_every_verb_is_a_session_for_who_has_nox_alone(listed: dict[str, tuple[str, str]]) -> None:
    assert cli.command.verbs.keys() - {"run"} == sessions.VERBS.keys() <= listed.keys()


def test_every_session_says_what_it_is(listed: dict[str, tuple[str, str]]) -> None:
    assert all(len(description) > 10 for _, description in listed.values())


def test_a_bare_nox_proves_the_matrix(listed: dict[str, tuple[str, str]]) -> None:
    assert {name for name, (mark, _) in listed.items() if mark == "*"} == {"host", "matrix"}


def test_what_the_callers_path_holds_is_installed_for_the_host_nonetheless(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", "needed", "1.0")
    zipfile.ZipFile(wheel).extractall(tmp_path / "path")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["needed"]\n')
    (tmp_path / "noxfile.py").write_text(f"""
import sys
from pathlib import Path
import nox
sys.path.insert(0, {str(ROOT / "src")!r})
from pinproof import sessions
@nox.session(default=False)
def host(session: nox.Session) -> None:
    sessions.install_host(session, Path({str(tmp_path)!r}))
""")
    words = ["-m", "nox", "-f", str(tmp_path / "noxfile.py"), "-s", "host"]
    subprocess.run(
        [sys.executable, *words, "--", "--wheelhouse", str(wheel.parent)],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "path")},
        capture_output=True,
        check=True,
    )
    found = [path.name for path in tmp_path.glob(".nox/host/lib/python*/site-packages/needed.py")]
    assert found == ["needed.py"]
