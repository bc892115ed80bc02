"""Tests of the whole way, with real locks and environments that hold nothing."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import empty_cells
import pytest
from judged import record

from pinproof import takeaway, workflow
from pinproof.errors import ExitCode, InfrastructureError, UnsafePinError
from pinproof.evidence.evidence import Outcome, digest_of
from pinproof.evidence.store import Store
from pinproof.judge.verdict import Verdict
from pinproof.matrix import matrixfile
from pinproof.matrix.matrixfile import Matrix
from pinproof.plan import recipe
from pinproof.plan.stage import Stage
from pinproof.report import explain
from pinproof.run.machine import this_machine
from pinproof.workflow import Proof


def prove(directory: Path, **more: object) -> tuple[Proof, str]:
    out = io.StringIO()
    return workflow.run(empty_cells.options(directory, **more), out), out.getvalue()


def test_cells_that_ask_for_the_same_are_resolved_once_and_installed_each(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=3)
    proof, out = prove(tmp_path)
    assert out.count(":resolve  ") == 2  # it starts, and it ends
    assert out.count(" ok cpu-") == 3
    for row in proof.rows:
        assert row.evidence[Stage.INSTALL].outcome is Outcome.OK
        assert (tmp_path / ".nox" / row.cell.id / "bin" / "python").exists()


def test_a_cell_that_was_only_installed_is_never_safe(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    proof, _ = prove(tmp_path)
    assert proof.document["counts"] == {"UNVERIFIED": 1}
    assert proof.exit_code == ExitCode.NOTHING_RAN


def test_a_second_run_runs_nothing_and_fresh_runs_everything(tmp_path: Path) -> None:
    empty_cells.write(tmp_path)
    prove(tmp_path)
    _, again = prove(tmp_path)
    assert " start " not in again
    assert "3 steps: 3 cached" in again
    _, fresh = prove(tmp_path, fresh=True)
    assert fresh.count(" start ") == 3


def test_a_crowd_of_cells_is_installed_each_in_its_own_environment(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=12)
    proof, out = prove(tmp_path, jobs=2)
    assert out.count(" ok cpu-") == 12
    logs = {row.evidence[Stage.INSTALL].log for row in proof.rows}
    assert len(logs) == 12
    for row in proof.rows:
        text = (tmp_path / ".pinproof" / row.evidence[Stage.INSTALL].log).read_text("utf-8")
        assert f"Session {row.cell.id} was successful" in text


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    empty_cells.write(tmp_path)
    proof, out = prove(tmp_path, dry_run=True)
    assert "plan " in out
    assert {step["state"] for step in proof.document["steps"]} == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.toml"]


def test_what_the_network_is_to_blame_for_is_inconclusive(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1, requirements='"there-is-no-such-package"')
    proof, _ = prove(tmp_path)
    assert proof.document["counts"] == {"INCONCLUSIVE": 1}
    assert proof.exit_code == ExitCode.INFRASTRUCTURE


def test_a_cell_that_is_not_safe_is_not_pinned(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    proof, _ = prove(tmp_path)
    (row,) = proof.rows
    for cells in ((row.cell.id,), ()):
        with pytest.raises(UnsafePinError):
            takeaway.pin(empty_cells.options(tmp_path, cells=cells), tmp_path / "pins")
    assert not (tmp_path / "pins").exists()


def test_a_sanitizer_that_is_asked_for_is_a_check_like_any_other(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    proof, out = prove(tmp_path, sanitize=True, dry_run=True)
    assert "with compute-sanitizer" in out
    (step,) = (step for step in proof.document["steps"] if step["stage"] == "sanitize")
    assert step["state"] in ("new", "unavailable")


def test_a_hazard_that_was_once_seen_counts_whether_the_run_asks_for_it_or_not(
    tmp_path: Path,
) -> None:
    empty_cells.write(tmp_path, count=1)
    proof, _ = prove(tmp_path)
    (work,) = proof.works.values()
    asked = replace(work, matrix=work.matrix.sanitized())
    stage, owner, inputs, _ = recipe.everything(asked, this_machine()).stages[-1]
    assert inputs is not None
    hazard = {"text": "Invalid read", "calls": ["a"], "warning": False}
    run = {"tool": "memcheck", "status": "HAZARD", "hazards": [hazard]}
    candidates = [{"name": "kernel", "runs": [run]}]
    data = {"tool": "1", "device": None, "candidates": candidates, "incomplete": []}
    seen = record(stage, data)
    Store(tmp_path / ".pinproof").save(
        replace(seen, cell=owner, inputs=inputs, digest=digest_of(inputs))
    )
    (row,) = workflow.recall(empty_cells.options(tmp_path)).rows
    assert row.judgement.verdict is Verdict.UNSAFE
    assert row.judgement.reason == "kernel under memcheck: Invalid read (in a)"


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    empty_cells.write(tmp_path)
    with (
        Store(tmp_path / ".pinproof").exclusive(),
        pytest.raises(InfrastructureError, match="another run is using"),
    ):
        prove(tmp_path)


def test_logs_that_were_removed_are_no_reason_to_run_again(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    prove(tmp_path)
    for log in (tmp_path / ".pinproof" / "logs").rglob("*.log"):
        log.unlink()
    proof, out = prove(tmp_path)
    assert " start " not in out
    assert proof.rows[0].evidence[Stage.INSTALL].outcome is Outcome.OK


def test_damaged_evidence_is_none(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    prove(tmp_path)
    (record,) = (tmp_path / ".pinproof" / "evidence").glob("cpu-*/install-*.json")
    record.write_text(record.read_text(encoding="utf-8")[:100], encoding="utf-8")
    _, out = prove(tmp_path)
    assert out.count(" start ") == 1


def test_what_the_machine_failed_is_known_afterwards_with_its_reason_and_log(
    tmp_path: Path,
) -> None:
    empty_cells.write(tmp_path, count=1, requirements='"there-is-no-such-package"')
    ran, out = prove(tmp_path)
    assert "resolve      infra        in this run" in out
    (before,) = ran.rows
    (after,) = workflow.recall(empty_cells.options(tmp_path)).rows
    assert (after.judgement, after.judgement.verdict) == (before.judgement, Verdict.INCONCLUSIVE)
    told = explain.text(explain.document(after, matrix_of(tmp_path), tmp_path))
    assert "  resolve      infra  " in told
    assert f"    {after.judgement.reason.removeprefix('resolve: ')}" in told


def test_a_stage_that_was_interrupted_is_known_afterwards(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1, checks=("correctness",))
    proof, _ = prove(tmp_path, until=Stage.INSTALL)
    ((cell, work),) = proof.works.items()
    store = Store(tmp_path / ".pinproof")
    for stage, owner, inputs, _ in recipe.everything(work, this_machine()).stages:
        if stage is Stage.INSPECT:
            assert inputs is not None
            stopped = record(stage, outcome=Outcome.CANCELLED, reason="interrupted")
            store.save(replace(stopped, cell=owner, inputs=inputs, digest=digest_of(inputs)))
    (row,) = workflow.recall(empty_cells.options(tmp_path, cells=(cell,))).rows
    assert row.judgement.verdict is Verdict.INCONCLUSIVE
    assert row.judgement.reason == "inspect: interrupted"


def test_a_log_that_cannot_be_written_is_the_machine_s_fault(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    (cell,) = prove(tmp_path, until=Stage.RESOLVE)[0].works
    (tmp_path / ".pinproof" / "logs" / cell).write_text("in the way", encoding="utf-8")
    proof, _ = prove(tmp_path)
    assert proof.exit_code is ExitCode.INFRASTRUCTURE
    (row,) = proof.rows
    assert row.judgement.verdict is Verdict.INCONCLUSIVE
    assert row.judgement.reason.startswith("install: cannot write")


def matrix_of(directory: Path) -> Matrix:
    return matrixfile.load(directory / "matrix.toml").named("empty")
