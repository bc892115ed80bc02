"""Tests of the options of a run."""

from pathlib import Path

import empty_cells
import pytest

from pinproof import options
from pinproof.errors import ConfigurationError
from pinproof.plan.stage import Stage


def test_the_project_is_where_the_noxfile_says_else_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PINPROOF_ROOT", str(tmp_path))
    assert options.root() == tmp_path
    monkeypatch.delenv("PINPROOF_ROOT")
    assert options.root() == Path.cwd()


def test_a_wheelhouse_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a directory"):
        empty_cells.options(tmp_path, wheelhouse=tmp_path / "none")


def test_fewer_jobs_than_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="1 or more"):
        empty_cells.options(tmp_path, jobs=0)


def test_environments_lie_beside_the_store(tmp_path: Path) -> None:
    assert empty_cells.options(tmp_path).envdir == tmp_path / ".nox"


def test_every_resolved_option_is_shown(tmp_path: Path) -> None:
    asked = empty_cells.options(
        tmp_path, select="torch > '2'", until=Stage.INSTALL, fresh=True, backend="system"
    )
    shown = "\n".join(asked.shown("cpu", 3, empty_cells.H100, 4))
    for word in (
        "NVIDIA H100 (sm_90), driver 580.1",
        f"cpu of {tmp_path / 'matrix.toml'}",
        "3 (torch > '2'), until install",
        "system",
        "offline, what lies in uv's cache",
        "everything measured again",
        "jobs       4",
    ):
        assert word in shown
