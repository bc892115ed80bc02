"""Tests of which cells a run is about."""

from dataclasses import replace
from pathlib import Path

import empty_cells
import pytest

from pinproof.errors import ConfigurationError, NothingRanError
from pinproof.matrix import selection
from pinproof.options import Options

ROOT = Path(__file__).parents[3]


def options(tmp_path: Path, **more: object) -> Options:
    return replace(
        empty_cells.options(tmp_path),
        matrix_file=ROOT / "matrix.toml",
        **more,  # type: ignore[arg-type]
    )


def test_a_machine_without_a_gpu_gets_the_cpu_matrix(tmp_path: Path) -> None:
    assert selection.make(options(tmp_path), empty_cells.CPU).matrix.name == "cpu"


def test_a_machine_with_a_gpu_gets_the_matrix_of_its_architecture(tmp_path: Path) -> None:
    assert selection.make(options(tmp_path), empty_cells.H100).matrix.name == "hopper"


def test_a_gpu_that_no_matrix_is_for_is_told_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(NothingRanError, match="sm_75") as caught:
        selection.make(options(tmp_path), replace(empty_cells.H100, target="sm_75"))
    assert "blackwell-release" in caught.value.remedy


def test_an_id_says_by_itself_which_matrix_it_is_of(tmp_path: Path) -> None:
    far = selection.make(options(tmp_path, matrix="blackwell-release"), empty_cells.CPU)
    cell = far.tried[0].id
    chosen = selection.make(options(tmp_path, cells=(cell, cell)), empty_cells.CPU)
    assert chosen.matrix.name == "blackwell-release"
    assert [each.id for each in chosen.cells] == [cell]


def test_an_unknown_id_gets_the_nearest_one(tmp_path: Path) -> None:
    known = selection.make(options(tmp_path), empty_cells.CPU).cells[0].id
    with pytest.raises(ConfigurationError, match=f"Did you mean '{known}'"):
        selection.make(options(tmp_path, cells=(known[:-1],)), empty_cells.CPU)


def test_a_cell_that_was_not_chosen_is_told_why(tmp_path: Path) -> None:
    one, other = selection.make(options(tmp_path), empty_cells.CPU).cells[:2]
    with pytest.raises(ConfigurationError, match=f"{one.id} is of the matrix cpu") as caught:
        selection.make(options(tmp_path, matrix="hopper", cells=(one.id,)), empty_cells.CPU)
    assert caught.value.remedy.startswith("add --matrix cpu")
    narrow = options(tmp_path, select=f"id == '{other.id}'", cells=(one.id,))
    with pytest.raises(ConfigurationError, match=f"--select .* leaves out the cell {one.id}"):
        selection.make(narrow, empty_cells.CPU)


def test_a_selector_narrows_and_excluded_cells_are_kept_apart(tmp_path: Path) -> None:
    whole = selection.make(options(tmp_path, matrix="blackwell-release"), empty_cells.CPU)
    some = selection.make(
        options(tmp_path, matrix="blackwell-release", select="vllm == 'none'"), empty_cells.CPU
    )
    assert 0 < len(some.cells) < len(whole.cells)
    assert len(some.tried) < len(some.cells)
    assert all(cell.exclusion is None for cell in some.tried)


def test_the_policy_says_which_cells_must_be_safe(tmp_path: Path) -> None:
    chosen = selection.make(options(tmp_path, matrix="blackwell-nightly"), empty_cells.CPU)
    by_id = {cell.id: cell for cell in chosen.tried}
    assert [by_id[cell].axis("torch") for cell in chosen.required] == ["2.14.1"]
    cpu = selection.make(options(tmp_path), empty_cells.CPU)
    assert cpu.required == {cell.id for cell in cpu.tried}


def test_a_driver_that_is_too_old_excludes_only_on_the_machine_that_has_it(tmp_path: Path) -> None:
    old = replace(empty_cells.H100, driver="450.1")
    here = selection.make(options(tmp_path, matrix="hopper"), old)
    assert not here.tried
    assert all(cell.exclusion and "driver" in cell.exclusion.reason for cell in here.cells)
    elsewhere = selection.make(options(tmp_path, matrix="hopper"), empty_cells.CPU)
    assert elsewhere.tried
