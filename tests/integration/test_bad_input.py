"""What goes wrong ends with a message, a code that says whose fault it is, and no traceback."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from checkouts import CELL, Ended, Project, copy_project


def assert_told(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.text
    assert "Traceback" not in ended.text
    for word in words:
        assert word in ended.text


def test_a_selector_that_matches_nothing_is_a_mistake(project: Project) -> None:
    ended = project.matrix("--matrix", "cpu", "--select", "triton == '1.0'")
    assert_told(ended, 2, "matches none of 3 cells", "there is triton 3.6.0, 3.7.1, 3.9.0")


def test_a_selector_that_is_no_expression_is_a_mistake(project: Project) -> None:
    assert_told(project.matrix("--matrix", "cpu", "--select", "triton = '3'"), 2, "next step:")


def test_an_unknown_matrix_gets_the_nearest_name(project: Project) -> None:
    assert_told(project.matrix("--matrix", "hoper"), 2, "Did you mean 'hopper'?")


def test_an_unknown_cell_gets_the_nearest_id(project: Project) -> None:
    ended = project.matrix("--matrix", "cpu", "--cell", CELL[:-1])
    assert_told(ended, 2, f"Did you mean '{CELL}'?")


def test_an_unknown_stage_gets_the_nearest_name(project: Project) -> None:
    assert_told(project.matrix("--until", "corectness"), 2, "Did you mean 'correctness'?")


def test_an_unknown_option_is_a_mistake(project: Project) -> None:
    assert_told(project.matrix("--untill", "install"), 2, "--until")


def test_a_wheelhouse_that_is_not_there_is_a_mistake(project: Project, tmp_path: Path) -> None:
    ended = project.matrix("--offline", "--wheelhouse", str(tmp_path / "none"))
    assert_told(ended, 2, "is not a directory", "make_wheelhouse.py")


@pytest.fixture(scope="module")
def broken(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose matrix file has a typing error in a key."""
    other = copy_project(tmp_path_factory.mktemp("broken"), ("src",))
    (other.root / ".nox").mkdir()
    shutil.copytree(project.root / ".nox" / "host", other.root / ".nox" / "host", symlinks=True)
    path = other.root / "matrix.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("triton =", "tritn =", 1), encoding="utf-8")
    return other


def test_a_broken_matrix_file_ends_the_run_with_its_place(broken: Project) -> None:
    ended = broken.matrix()
    assert_told(ended, 2, "matrix.toml", "axes", "'tritn'", "Did you mean 'triton'?")


def test_a_broken_matrix_file_leaves_the_other_sessions_alone(broken: Project) -> None:
    ended = broken.nox("-l")
    assert_told(ended, 0, "* matrix ->", "- tests ->", "no cells", "'tritn'")


def test_a_store_that_cannot_be_made_is_the_machine_s_fault(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    store = tmp_path / "file" / "store"
    assert_told(project.matrix("--cell", CELL, "--store", str(store)), 4, f"cannot write {store}")


def test_a_disk_that_fills_up_is_the_machine_s_fault(project: Project, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=12", "tmpfs", str(store)]
    if subprocess.run(small, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        ended = project.matrix("--cell", CELL, "--until", "install", "--store", str(store))
    finally:
        subprocess.run(["umount", "-l", str(store)], check=True)
    assert_told(ended, 4, "cannot write", "the disk is full", "--store DIR")


def test_two_runs_on_one_store_do_not_mix(project: Project, tmp_path: Path) -> None:
    import filelock

    store = tmp_path / "store"
    store.mkdir()
    with filelock.FileLock(store / "run.lock"):
        ended = project.matrix("--cell", CELL, "--store", str(store))
    assert_told(ended, 4, "another run is using")


def test_a_report_before_any_run_says_what_to_do(project: Project, tmp_path: Path) -> None:
    ended = project.nox("-s", "report", "--", "--matrix", "cpu", "--store", str(tmp_path))
    assert_told(ended, 2, "run `nox -s matrix -- --matrix cpu` first")
