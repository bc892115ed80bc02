"""Tests of what names a stage's evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import empty_cells
import pytest
from judged import cell

from pinproof.errors import ResolveError
from pinproof.evidence.evidence import digest_of
from pinproof.locks.lock import Lock, Pin, Wheel
from pinproof.plan import recipe
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage

CHECKS = ("correctness", "throughput")


def works(directory: Path, **more: object) -> list[CellWork]:
    empty_cells.write(directory, checks=CHECKS)
    chosen = empty_cells.chosen(directory, **more)
    made = [recipe.of(each, chosen.matrix, python=empty_cells.PYTHON) for each in chosen.tried]
    return [replace(work, lock=Lock(python=empty_cells.PYTHON)) for work in made]


def inputs(work: CellWork, machine: object = empty_cells.CPU) -> dict[Stage, str]:
    staged = recipe.everything(work, machine)  # type: ignore[arg-type]
    return {stage: digest_of(read) for stage, _, read, _ in staged.stages}


def test_cells_that_ask_for_the_same_share_a_lock_and_nothing_else(tmp_path: Path) -> None:
    one, other = works(tmp_path)
    assert recipe.lock_owner(one.request) == recipe.lock_owner(other.request)
    owners = [owner for _, owner, _, _ in recipe.everything(one, empty_cells.CPU).stages]
    assert owners[1:] == [one.cell.id] * 4


def test_another_package_is_another_install_and_another_measurement(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    pin = Pin(name="numpy", version="2.3.0", sha256="a" * 64, file="numpy-2.3.0-py3-none-any.whl")
    moved = replace(work, lock=Lock(python=empty_cells.PYTHON, harness=(pin,)))
    before, after = inputs(work), inputs(moved)
    assert before[Stage.RESOLVE] == after[Stage.RESOLVE]
    assert all(before[stage] != after[stage] for stage in before if stage is not Stage.RESOLVE)


def test_a_system_package_that_was_built_anew_under_its_version_is_measured_again(
    tmp_path: Path,
) -> None:
    work = replace(works(tmp_path)[0], system={"torch": "2.11.0"}, records={"torch": "a" * 64})
    assert inputs(work) == inputs(replace(work))
    before, after = inputs(work), inputs(replace(work, records={"torch": "b" * 64}))
    assert before[Stage.CORRECTNESS] != after[Stage.CORRECTNESS]


def test_another_machine_measures_again_and_does_not_install_again(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    before = inputs(work)
    after = inputs(work, replace(empty_cells.CPU, cpu="Another Processor"))
    assert before[Stage.INSTALL] == after[Stage.INSTALL]
    assert before[Stage.CORRECTNESS] != after[Stage.CORRECTNESS]


def test_a_variable_of_the_cell_is_part_of_what_it_measures(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    other = replace(work, settings=replace(work.settings, env=(("OMP_NUM_THREADS", "1"),)))
    assert inputs(work)[Stage.INSPECT] != inputs(other)[Stage.INSPECT]


def test_the_stages_end_where_the_user_says(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    staged = recipe.everything(work, empty_cells.CPU, until=Stage.INSPECT)
    assert [stage for stage, *_ in staged.stages] == [Stage.RESOLVE, Stage.INSTALL, Stage.INSPECT]


def test_before_the_lock_is_known_the_digests_are_not_either(tmp_path: Path) -> None:
    work = replace(works(tmp_path)[0], lock=None)
    staged = recipe.everything(work, empty_cells.CPU)
    assert [read for _, _, read, _ in staged.stages[1:]] == [None] * 4


def test_code_that_runs_in_cells_is_named_whole_and_bytecode_is_not(tmp_path: Path) -> None:
    digest = recipe.code_digest()
    assert len(digest) == 64
    assert recipe.suite().joinpath("test_attention.py").is_file()


def test_a_vllm_from_source_is_refused_with_a_way_out() -> None:
    matrix = empty_cells.shipped().named("blackwell-nightly")
    asked = cell(target="sm_120", vllm="git:main", flash_attn="none", cuda="13.0")
    with pytest.raises(ResolveError, match="from source") as caught:
        recipe.of(asked, matrix, python="3.12")
    assert not caught.value.conflict
    assert "released vLLM" in caught.value.remedy


def test_what_is_built_is_not_resolved_but_what_it_imports_is() -> None:
    matrix = empty_cells.shipped().named("blackwell-release")
    asked = cell(target="sm_120", flash_attn="2.8.3.post2", cuda="13.0")
    request = recipe.of(asked, matrix, python="3.12").request
    assert "einops" in request.product
    assert not [text for text in request.product if text.startswith("flash-attn")]


def test_pins_hold_the_wheels_that_were_built(tmp_path: Path) -> None:
    wheel = Wheel(path="/x/flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl", sha256="b" * 64)
    pinned = works(tmp_path)[0].pinned([wheel])
    assert pinned is not None
    assert [(pin.name, pin.version) for pin in pinned.product] == [("flash-attn", "2.8.3")]
