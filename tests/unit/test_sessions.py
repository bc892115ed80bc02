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


def test_a_missing_file_has_no_cells_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(sessions.cells(tmp_path / "matrix.toml")) == []
    assert "matrix.toml" in capsys.readouterr().err


def test_the_session_of_a_cell_is_described_by_its_axes() -> None:
    cell = next(sessions.cells(ROOT / "matrix.toml"))
    assert sessions.for_cell(cell, ROOT).__doc__ == f"{cell.matrix}: {cell.label}"
