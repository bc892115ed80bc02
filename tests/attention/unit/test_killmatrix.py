"""The measure of the suite: broken kernels are killed, right ones are not, and holes are named."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from pinproof_cell.killmatrix import question, table, verb, worker
from pinproof_cell.mutants import Mutant, everything
from pinproof_cell.request import BadRequestError
from pinproof_cell.suite import checks
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.checks import Repeats
from pinproof_cell.world.journal import Journal

ROOT = Path(__file__).parents[3]
MATRIX = ROOT / "results" / "mutants" / "cpu.json"
PAGE = ROOT / "docs" / "explanation" / "mutants.md"
AGAIN = "python -m pinproof_cell mutants --json results/mutants/cpu.json --docs " + str(
    PAGE.relative_to(ROOT)
)

ROUNDS = [["113x203-d64-h4k2-causal-fp16-peaked"], ["130x2-d64-causal-fp16-peaked"]]

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
    """A run of two rounds of one check, with an extra file, that was ended after the first."""
    folder = tmp_path_factory.mktemp("extra")
    extra = folder / "extra.py"
    extra.write_text(EXTRA, encoding="utf-8")
    verb.run(folder, extra=extra, rounds=ROUNDS[:1], say=lambda line: None)
    before = asked(folder)
    Journal(folder / "round-0" / "share-0.jsonl").add("begin", mutant="halved", check="open")
    found = verb.run(folder, extra=extra, rounds=ROUNDS, say=lambda line: None)
    assert asked(folder) == before
    return found


def asked(folder: Path) -> list[dict[str, Any]]:
    """Return what was asked in the first round, each time it was."""
    return Journal(folder / "round-0" / "share-0.jsonl").lines("begin", "end")


def by_id(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in document["mutants"]}


def test_a_right_kernel_survives_and_no_control_is_rejected(small: dict[str, Any]) -> None:
    """What survives two checks is right, or active by no more than a bit in them."""
    rows = by_id(small)
    assert "right" in small["survivors"]
    assert all(rows[name]["max_z"] < 10 for name in small["survivors"])
    assert small["rejected"] == []
    assert small["rounds"] == ROUNDS


def test_an_extra_mutant_may_end_its_process(small: dict[str, Any]) -> None:
    """A mutant that crashes is killed by it, once, and the others are still judged."""
    rows = by_id(small)
    assert rows["dies"]["result"] == "killed"
    assert rows["dies"]["by"] == {"crash": 1}
    assert rows["halved"]["first"] == ROUNDS[0][0]


def test_what_a_round_kills_is_not_asked_the_next(small: dict[str, Any]) -> None:
    """The second round asks survivors, sleepers and controls."""
    rows = by_id(small)
    assert rows["causal-top-left"]["asked"] == 1
    assert rows["lse-plus-inf"]["first"] == ROUNDS[1][0]
    assert rows["honest"]["asked"] == rows["right"]["asked"] == 2


def test_the_status_is_1_where_a_mutant_survives(
    small: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A survivor fails the run and stands in its last lines; the journal is gone."""

    def ran(folder: Path, **rest: Any) -> dict[str, Any]:
        folder.mkdir()
        return small

    monkeypatch.setattr(verb, "run", ran)
    result = tmp_path / "out.json"
    options = argparse.Namespace(extra=None, docs=None, json=result)
    assert verb.main(options) == (None, 1)
    assert json.loads(result.read_text())["survivors"] == small["survivors"]
    assert list(tmp_path.iterdir()) == [result]
    assert "`right`" in capsys.readouterr().out.splitlines()[-1 - bool(small["inactive"])]


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
        worker.gather(extra)


def test_an_extra_file_that_raises_is_bad_input(tmp_path: Path) -> None:
    """What an extra file raises ends the run with one line."""
    extra = tmp_path / "extra.py"
    extra.write_text("1/0", encoding="utf-8")
    with pytest.raises(BadRequestError, match="do not load: ZeroDivisionError: division by zero"):
        verb.run(tmp_path, extra=extra, rounds=[[]], say=lambda line: None)


def test_a_folder_of_another_run_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "round-0").mkdir()
    (tmp_path / "round-0" / "task.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadRequestError, match="other mutants or checks"):
        verb.run(tmp_path, rounds=[[]], say=lambda line: None)


def mutant(**facts: Any) -> Mutant:
    return Mutant(**{"id": "x", "family": "masks", "stands_for": "", "make": print, **facts})


def test_a_mutant_meets_what_could_see_it() -> None:
    """Gradients and repeats are for those that break them, and for controls."""
    plain, backward = Case(8, 8), Case(8, 8, backward=True)
    sinks, repeats = Case(8, 8, sinks=True), Repeats(plain, 3)
    asked = (plain, backward, sinks, repeats)

    def met(**facts: Any) -> list[bool]:
        return [question.meets(mutant(**facts), check) for check in asked]

    assert met() == [True, False, True, False]
    assert met(needs=frozenset({"sinks"})) == [False, False, True, False]
    assert met(needs=frozenset({"backward"})) == [False, True, False, False]
    assert met(unsteady=True) == [True, False, True, True]
    assert met(control=True) == met(family="extra") == [True] * 4


def result(status: str, *, active: bool, check: str = "a") -> dict[str, Any]:
    finding = {"check": "output", "statistic": "max_z"}
    return {
        "check": check,
        "status": status,
        "active": active,
        "stats": {"max_z": 3.0},
        "findings": [] if status == "PASS" else [finding],
    }


FACTS = {"id": "x", "family": "masks", "control": False}


@pytest.mark.parametrize(
    ("results", "word"),
    [
        ([result("PASS", active=False)], "inactive"),
        ([result("PASS", active=True)], "SURVIVED"),
        ([result("PASS", active=True), result("DEGRADED", active=True)], "killed"),
        ([result("UNSUPPORTED", active=True), result("NOT-RUN", active=False)], "inactive"),
    ],
)
def test_a_row_counts_what_was_heard(results: list[dict[str, Any]], word: str) -> None:
    """A refusal and a machine that fails say nothing; DEGRADED kills."""
    assert table.row(FACTS, results)["result"] == word


def test_a_control_must_pass_where_it_answers_as_the_honest_one_too() -> None:
    """A suite that rejects an honest answer rejects a control."""
    row = table.row(FACTS | {"control": True}, [result("FAIL", active=False)])
    assert row["result"] == "REJECTED"
    assert table.row(FACTS | {"control": True}, [result("PASS", active=True)])["result"] == "passed"


def test_the_committed_matrix_is_of_these_mutants_and_checks() -> None:
    """results/mutants/cpu.json holds every mutant and check of today, and nothing survived."""
    document = json.loads(MATRIX.read_text(encoding="utf-8"))
    assert [row["id"] for row in document["mutants"]] == [m.id for m in everything()], AGAIN
    asked = {name for names in document["rounds"] for name in names}
    wanted = {check.id for level in checks.LEVELS for check in checks.suite(level, "cpu")}
    assert asked == wanted, AGAIN
    assert document["survivors"] == document["rejected"] == []


def test_the_page_shows_the_committed_matrix() -> None:
    """docs/explanation/mutants.md is what the committed matrix makes of it."""
    page = PAGE.read_text(encoding="utf-8")
    document = json.loads(MATRIX.read_text(encoding="utf-8"))
    assert table.documented(page, document) == page, AGAIN


@pytest.mark.parametrize("text", [None, "a page without marks\n"])
def test_a_page_that_cannot_take_the_matrix_is_told_before_any_mutant_is_asked(
    tmp_path: Path, text: str | None
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text, encoding="utf-8")
    options = argparse.Namespace(extra=None, docs=page, json=tmp_path / "matrix.json")
    with pytest.raises(BadRequestError, match=r"cannot be read as a page|has no marks"):
        verb.main(options)
    assert not options.json.with_name("matrix.json.journal").exists()
