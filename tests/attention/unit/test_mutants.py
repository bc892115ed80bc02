"""The measure of the suite: broken kernels are killed, right ones are not, and holes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pinproof_cell.call import Call
from pinproof_cell.mutants import emulation, everything, source
from pinproof_cell.request import BadRequestError
from pinproof_cell.suite import inputs, killmatrix, killworker
from pinproof_cell.suite.grid import PLAIN

ROOT = Path(__file__).parents[3]
MATRIX = ROOT / "results" / "mutants" / "cpu.json"
PAGE = ROOT / "docs" / "explanation" / "mutants.md"
AGAIN = "python -m pinproof_cell mutants --json results/mutants/cpu.json --docs " + str(
    PAGE.relative_to(ROOT)
)

FEW = ["113x203-d64-h4k2-causal-fp16-peaked", "130x2-d64-causal-fp16-peaked"]
#: Active by a bit in these cases, and killed in the longer or unmasked ones of the full run.
FAINT = {"tail-weighs-zero", "tail-repeats-last-key", "output-accumulates-low"}

EXTRA = """
import os, signal
from pinproof_cell.mutants.emulation import HONEST, changed

def dies(q, k, v, **rest):
    os.kill(os.getpid(), signal.SIGSEGV)

def halved(q, k, v, **rest):
    out, lse = HONEST(q, k, v, **rest)
    return out / 2, lse

MUTANTS = {"dies": dies, "halved": halved, "right": changed(block=32)}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run on a few cases, with an extra file."""
    extra = tmp_path_factory.mktemp("extra") / "extra.py"
    extra.write_text(EXTRA, encoding="utf-8")
    return killmatrix.run(extra=extra, cases=FEW, repeats=10, say=lambda line: None)


def test_every_active_mutant_is_killed_and_no_control(small: dict[str, Any]) -> None:
    """Two cases kill what they wake; what survives is right, or wrong elsewhere by more."""
    assert "right" in small["survivors"]
    assert set(small["survivors"]) - {"right"} <= FAINT
    assert small["rejected"] == []
    assert small["cases"] == FEW


def test_an_extra_mutant_may_end_its_process(small: dict[str, Any]) -> None:
    """A mutant that crashes is killed by it, and the others are still judged."""
    rows = {row["id"]: row for row in small["mutants"]}
    assert rows["dies"]["result"] == "killed"
    assert set(rows["dies"]["by"]) == {"crash"}
    assert rows["halved"]["killed"] == rows["halved"]["active"] == len(FEW)
    assert rows["halved"]["first"] == small["cases"][0]


def test_the_status_is_1_where_a_mutant_survives(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A survivor fails the run and stands in its last lines."""
    monkeypatch.setattr(killmatrix, "run", lambda **_: small)
    options = type("Options", (), {"extra": None, "docs": None})()
    document, status = killmatrix.main(options)
    assert status == 1
    assert document is small
    assert "`right`." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("MUTANTS = [1]", "has no MUTANTS, a dict"),
        ("MUTANTS = {'honest': print}", "names mutants that exist: honest"),
        ("", "has no MUTANTS, a dict"),
    ],
)
def test_a_wrong_extra_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """An extra file without MUTANTS or with a taken name is named."""
    extra = tmp_path / "extra.py"
    extra.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        killworker.gather(extra)


def test_an_extra_file_that_raises_is_bad_input(tmp_path: Path) -> None:
    """What an extra file raises ends the run with one line."""
    extra = tmp_path / "extra.py"
    extra.write_text("1/0", encoding="utf-8")
    with pytest.raises(BadRequestError, match="do not load: ZeroDivisionError: division by zero"):
        killmatrix.run(extra=extra, cases=[], say=lambda line: None)


@pytest.mark.parametrize("edit", source.EDITS, ids=lambda edit: edit.id)
def test_every_edit_still_fits_the_kernel(edit: source.Edit) -> None:
    """The text that an edit replaces stands in kernel.py exactly once."""
    assert source.edited(edit) != (source.KERNELS / edit.file).read_text(encoding="utf-8")


def test_mutants_are_many_and_named_once() -> None:
    """Ids are unique, each family is there, and the cases of source mutants exist."""
    mutants = everything()
    assert len({mutant.id for mutant in mutants}) == len(mutants)
    assert sum(not mutant.control for mutant in mutants) >= 60
    assert sum(mutant.control for mutant in mutants) >= 8
    assert {case.id for case in PLAIN} >= source.CASES


def test_the_emulation_is_the_oracle_but_for_rounding() -> None:
    """In float32, where nothing is rounded away, the honest emulation is attention."""
    from pinproof_cell.oracle import forward as oracle

    for case in PLAIN[3::8]:
        drawn = inputs.generate(case, 0, "cpu")
        q, k, v = (x.float() for x in (drawn.q, drawn.k, drawn.v))
        out, lse = emulation.HONEST(q, k, v, **drawn.keywords())
        truth = oracle.attention(Call(q=q, k=k, v=v, **drawn.keywords()))
        torch.testing.assert_close(out.double(), truth.out, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(lse.double(), truth.lse, rtol=1e-5, atol=1e-4)


def test_the_committed_matrix_is_of_these_mutants_and_cases() -> None:
    """results/mutants/cpu.json holds every mutant and case of today, and nothing survived."""
    document = json.loads(MATRIX.read_text(encoding="utf-8"))
    assert [row["id"] for row in document["mutants"]] == [m.id for m in everything()], AGAIN
    assert document["cases"] == [case.id for case in PLAIN], AGAIN
    assert document["survivors"] == document["rejected"] == []


def test_the_page_shows_the_committed_matrix() -> None:
    """docs/explanation/mutants.md is what the committed matrix makes of it."""
    page = PAGE.read_text(encoding="utf-8")
    document = json.loads(MATRIX.read_text(encoding="utf-8"))
    assert killmatrix.documented(page, document) == page, AGAIN
