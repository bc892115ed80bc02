"""Tests of what the noxfile calls."""

from pathlib import Path

import empty_cells
import pytest

from pinproof import sessions

ROOT = Path(__file__).parents[2]


def test_every_cell_that_can_be_tried_is_there_once() -> None:
    cells = list(sessions.cells(ROOT / "matrix.toml"))
    assert {cell.matrix for cell in cells} == {each.name for each in empty_cells.shipped().matrices}
    assert len({cell.id for cell in cells}) == len(cells)
    assert all(cell.exclusion is None for cell in cells)


def test_a_broken_file_has_no_cells_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text("format = 1\n[targets.cpu]\n[[matrx]]\n", encoding="utf-8")
    assert list(sessions.cells(path)) == []
    assert "Did you mean 'matrix'" in capsys.readouterr().err
    assert list(sessions.cells(path, ["nox", "-s", "report"])) == []
    told = capsys.readouterr().err
    assert "`nox -l` says where" in told
    assert "Did you mean" not in told  # the session says it, once


def test_a_missing_file_has_no_cells_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(sessions.cells(tmp_path / "matrix.toml")) == []
    assert "matrix.toml" in capsys.readouterr().err


def test_a_matrix_that_is_too_large_for_sessions_says_how_its_cells_are_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = [f"{number}.0" for number in range(2, 102)]
    path = tmp_path / "matrix.toml"
    text = f"""format = 1
targets.cpu = {{}}
[[matrix]]
name = "large"
target = "cpu"
limit = 10_000
axes = {{ torch = {versions}, triton = {versions} }}
[[matrix]]
name = "small"
target = "cpu"
axes = {{ torch = {versions[:2]} }}
"""
    path.write_text(text, encoding="utf-8")
    assert [cell.matrix for cell in sessions.cells(path)] == ["small", "small"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "large: 10,000 combinations" in line
    assert "nox -s matrix -- --matrix large --cell ID" in line


def test_the_session_of_a_cell_is_described_by_its_axes() -> None:
    cell = next(sessions.cells(ROOT / "matrix.toml"))
    assert sessions.for_cell(cell, ROOT).__doc__ == f"{cell.matrix}: {cell.label}"
