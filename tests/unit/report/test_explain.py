"""Tests of everything that is known of one cell."""

from dataclasses import replace
from pathlib import Path

import empty_cells
from judged import cell, known, whole

from pinproof import workflow
from pinproof.judge.judgement import judge
from pinproof.judge.sanitized import Hazard, Sanitized
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile
from pinproof.report import explain
from pinproof.report.results import Row

SHIPPED = Path(__file__).parents[3] / "matrix.toml"


def test_a_cell_without_evidence_says_how_to_get_some(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    asked = empty_cells.options(tmp_path)
    matrix = matrixfile.load(asked.matrix_file).matrices[0]
    found = explain.document(workflow.recall(asked).rows[0], matrix, asked.store)
    assert found["verdict"] == "UNVERIFIED"
    assert found["evidence"] == []
    assert "no evidence yet" in explain.text(found)


def test_an_excluded_cell_names_its_rule_and_where_that_is_written(tmp_path: Path) -> None:
    matrix = matrixfile.load(SHIPPED).named("blackwell-release")
    excluded = next(
        each for each in cells.expand(matrix) if each.exclusion and each.exclusion.source
    )
    judged = judge(excluded, {}, matrix.policy)
    row = Row(cell=excluded, judgement=judged, evidence={}, required=False)
    found = explain.document(row, matrix, tmp_path)
    assert excluded.exclusion is not None
    assert found["excluded"]["rule"] == excluded.exclusion.rule
    assert found["verdict"] == "EXCLUDED"
    assert excluded.exclusion.source in explain.text(found)


def test_a_cell_as_values_is_what_it_is() -> None:
    document = explain.cell_document(cell(torch="2.13.0", triton="3.9.0"))
    assert document["axes"] == {"torch": "2.13.0", "triton": "3.9.0"}
    assert document["excluded"] is None


def test_a_known_defect_is_told_with_its_thread_and_whether_it_still_shows(tmp_path: Path) -> None:
    matrix = matrixfile.load(SHIPPED).named("cpu")
    evidence = whole(defects=(known("shown", shown=("a",)), known("gone", passed=["b"])))
    one = cell()
    row = Row(cell=one, judgement=judge(one, evidence, matrix.policy), evidence=evidence)
    hazard = Hazard(candidate="k", tool="memcheck", text="bad", calls=("a",), warning=False)
    seen = Sanitized(version="1", clean=("k initcheck",), hazards=(hazard,), unseen=("late",))
    judged = replace(row.judgement, sanitizer=seen)
    text = explain.text(explain.document(replace(row, judgement=judged), matrix, tmp_path))
    assert "sanitizer  1: 1 runs clean\n  hazard     k under memcheck: bad\n" in text
    assert "not seen   late\n" in text
    assert "defect     torch-cpu-flash: shown, somewhere#1; shown by a\n" in text
    assert "defect     torch-cpu-flash: gone, somewhere#1; not shown any more\n" in text
