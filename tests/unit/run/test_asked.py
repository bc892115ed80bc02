"""Tests of what is refused of a run before any work, and of what is told beside it."""

from __future__ import annotations

from pathlib import Path

import empty_cells
import pytest

from pinproof.errors import ConfigurationError
from pinproof.plan.stage import Stage
from pinproof.run import asked


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project of two empty cells."""
    empty_cells.write(tmp_path)
    monkeypatch.setenv("PINPROOF_ROOT", str(tmp_path))
    return tmp_path


def check(project: Path, **options: object) -> None:
    asked.check(empty_cells.options(project, **options), empty_cells.chosen(project, **options))


def add(project: Path, text: str) -> None:
    path = project / "matrix.toml"
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_an_interpreter_that_no_cell_would_use_is_refused(project: Path) -> None:
    with pytest.raises(ConfigurationError, match="--python /nowhere is for the back end"):
        check(project, python="/nowhere")
    check(project, python="/nowhere", backend="system")


def test_a_last_stage_that_the_matrix_does_not_have_is_refused(project: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no stage sanitize") as caught:
        check(project, until=Stage.SANITIZE)
    assert caught.value.remedy == "add --sanitize"
    check(project, until=Stage.SANITIZE, sanitize=True)
    with pytest.raises(ConfigurationError, match="has no stage correctness"):
        check(project, until=Stage.CORRECTNESS)
    check(project, until=Stage.INSPECT)


def test_what_the_matrix_names_in_the_project_must_be_there_whatever_is_run(project: Path) -> None:
    override = "[[matrix.overrides]]\nselect = 'target == \"cpu\"'\n"
    add(project, override + 'conda = "nosuch"\n')
    with pytest.raises(ConfigurationError, match="there is no conda environment 'nosuch'"):
        check(project)


@pytest.mark.parametrize(
    ("patch", "told"), [("nosuch.patch", "no patch"), ("../x.patch", "outside of the project")]
)
def test_a_patch_must_lie_in_the_project(project: Path, patch: str, told: str) -> None:
    include = '[[matrix]]\nname = "patched"\ntarget = "cpu"\n'
    include += 'axes = { torch = ["2.13.0"], flash-attn = ["2.8.3"] }\n'
    override = "[[matrix.overrides]]\nselect = 'target == \"cpu\"'\n"
    add(project, include + override + f'patches = {{ flash-attn = ["{patch}"] }}\n')
    with pytest.raises(ConfigurationError, match=told):
        check(project, matrix="patched")


def test_what_has_no_effect_is_told(project: Path) -> None:
    chosen = empty_cells.chosen(project)
    checks, torch, until = asked.notes(empty_cells.options(project, until=Stage.BUILD), chosen)
    assert "no cell of empty can be found SAFE" in checks
    assert torch.startswith("without    torch")
    assert "no cell has anything to build" in until
