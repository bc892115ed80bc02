"""Tests of the plan as people read it."""

from pathlib import Path

import empty_cells
import pytest

from pinproof.evidence.evidence import Outcome
from pinproof.evidence.store import Store
from pinproof.matrix.cell import Cell
from pinproof.plan import plan, preview, recipe
from pinproof.plan.plan import Plan
from pinproof.plan.stage import Stage


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Plan, tuple[Cell, ...]]:
    return plan_of(tmp_path, 2)


def plan_of(directory: Path, count: int) -> tuple[Plan, tuple[Cell, ...]]:
    empty_cells.write(directory, count=count)
    chosen = empty_cells.chosen(directory)
    works = [recipe.of(cell, chosen.matrix, python=empty_cells.PYTHON) for cell in chosen.tried]
    made = plan.make(
        [recipe.everything(work, empty_cells.CPU) for work in works],
        Store(directory / "store"),
        machine="cpu",
    )
    return made, chosen.cells


def test_every_step_of_every_cell_is_told_with_its_reason(
    planned: tuple[Plan, tuple[Cell, ...]],
) -> None:
    lines = list(preview.lines(*planned, {}))
    assert lines[0] == "plan       2 cells, 3 steps: 3 new"
    for cell in planned[1]:
        start = lines.index(f"  {cell.id}  {cell.label}")
        assert "shared by 2" in lines[start + 1]
        assert lines[start + 2].split()[:2] == ["install", "new"]
        assert lines[start + 2].endswith("what it reads is not known yet")


def test_a_step_that_ended_ill_is_told_by_how_it_ended(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    chosen = empty_cells.chosen(tmp_path)
    work = recipe.of(chosen.tried[0], chosen.matrix, python=empty_cells.PYTHON)
    asked, store = [recipe.resolving(work)], Store(tmp_path)
    (step,) = plan.make(asked, store, machine="cpu").steps
    made = plan.make(asked, store, machine="cpu", done={step.id: Outcome.INFRA})
    lines = list(preview.lines(made, chosen.cells, {}))
    assert lines[0] == "plan       1 cells, 1 steps: 1 infra"
    assert lines[2].split() == ["resolve", "infra", "in", "this", "run"]


def test_steps_that_cannot_run_here_are_counted_once() -> None:
    work = plan.Work(cell="a", target="sm_90", stages=((Stage.CORRECTNESS, "a", {"a": 1}, 9.0),))
    made = plan.make([work], Store(Path("nowhere")), machine="cpu")
    assert next(iter(preview.lines(made, [], {}))) == "plan       0 cells, 1 steps: 1 unavailable"


def test_a_cell_that_cannot_be_planned_says_why(planned: tuple[Plan, tuple[Cell, ...]]) -> None:
    cell = planned[1][0].id
    assert "    no such thing" in list(preview.lines(*planned, {cell: "no such thing"}))


def test_many_cells_are_counted_unless_all_are_asked_for(tmp_path: Path) -> None:
    count = preview.MANY + 1
    made, cells = plan_of(tmp_path, count)
    short = list(preview.lines(made, cells, {}))
    assert len(short) < 6
    assert any(f"{count} x install" in line for line in short)
    assert len(list(preview.lines(made, cells, {}, full=True))) > 2 * count


def test_the_document_holds_every_step_with_what_it_needs(
    planned: tuple[Plan, tuple[Cell, ...]],
) -> None:
    document = preview.document(*planned, {})
    ids = {step["id"] for step in document["steps"]}
    assert {need for step in document["steps"] for need in step["needs"]} <= ids
    assert len(document["cells"]) == 2
