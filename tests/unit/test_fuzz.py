"""Searching the kernels of a cell: what a search came to, and what keeps it from being made."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import empty_cells
import pytest
from judged import cell

from pinproof import fuzz
from pinproof.errors import ConfigurationError, ExitCode, NothingRanError
from pinproof.fuzz import Found, Hunt


def found(*defects: str | None, **more: Any) -> Found:
    """Return what a search found: a group for each of `defects`, None where it is not known."""
    groups = [{"defect": defect} for defect in defects]
    told = {"groups": groups, "unexplained": {}, "lost": None, "judged": 100, **more}
    return Found(candidate="kernel", folder=Path("store/fuzz"), document=told)


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ([found()], ExitCode.OK),
        ([found("torch-cpu-no-keys")], ExitCode.OK),
        ([found(None)], ExitCode.UNSAFE),
        ([found(), found("known", None)], ExitCode.UNSAFE),
        ([found(unexplained={"FAIL output max_z": 3})], ExitCode.UNSAFE),
        ([found(lost="the child did not start")], ExitCode.INFRASTRUCTURE),
        ([found(None, lost="the child did not start")], ExitCode.UNSAFE),
        ([found(judged=0)], ExitCode.NOTHING_RAN),
        ([found(judged=0), found()], ExitCode.OK),
    ],
)
def test_what_is_no_known_defect_decides_the_exit_code(
    each: list[Found], expected: ExitCode
) -> None:
    assert fuzz.exit_code(each) is expected
    assert fuzz.document("cpu-1", each)["exit_code"] == expected


def test_the_summary_counts_what_is_new_and_names_what_is_known() -> None:
    first, where = fuzz.summary([found("torch-cpu-no-keys", None)])
    assert first == "kernel: 100 cases judged, 1 new failure; known defects: torch-cpu-no-keys"
    assert where.endswith("store/fuzz")
    assert next(fuzz.summary([found()])) == "kernel: 100 cases judged, no new failures"


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"seconds": float("nan")}, {"seed": -1}])
def test_a_search_that_cannot_be_made_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        Hunt(**wrong)


def test_a_cell_without_a_kernel_is_installed_and_then_says_why_it_cannot_be_searched(
    tmp_path: Path,
) -> None:
    empty_cells.write(tmp_path, count=1, checks=("correctness",))
    asked = replace(empty_cells.options(tmp_path), cells=(only(tmp_path),))
    for again in (False, True):
        with pytest.raises(NothingRanError, match=r"can be called: .*torch"):
            fuzz.fuzz(asked, Hunt(), io.StringIO())
        home = asked.envdir / asked.cells[0]
        assert (home / "bin" / "python").exists()
        if not again:
            shutil.rmtree(home)  # it is made again
    with pytest.raises(ConfigurationError, match="Did you mean 'torch-cpu-flash'"):
        fuzz.fuzz(asked, Hunt(candidates=("torch-cpu-flush",)), io.StringIO())


def test_a_cell_of_another_machine_is_not_searched(tmp_path: Path) -> None:
    text = empty_cells.write(tmp_path, count=1).read_text(encoding="utf-8")
    text = text.replace("[targets.cpu]", "[targets.sm_70]").replace('"cpu"', '"sm_70"')
    (tmp_path / "matrix.toml").write_text(text, encoding="utf-8")
    asked = replace(empty_cells.options(tmp_path, matrix="empty"), cells=(only(tmp_path),))
    with pytest.raises(NothingRanError, match="is for sm_70"):
        fuzz.fuzz(asked, Hunt(), io.StringIO())


def only(directory: Path) -> str:
    """Return the id of the one cell of the matrix file."""
    (one,) = empty_cells.chosen(directory, matrix="empty").cells
    assert one.id != cell().id
    return one.id
