"""What compute-sanitizer saw, and what that claims."""

from typing import Any

from judged import cell, record, whole

from pinproof.judge import sanitized
from pinproof.judge.judgement import judge
from pinproof.judge.verdict import Verdict
from pinproof.matrix.matrixfile import Policy
from pinproof.plan.stage import Stage

HAZARD = {
    "what": "Invalid __global__ read of size 16 bytes",
    "text": "Invalid __global__ read of size 16 bytes in _copy at planted.py:17",
    "calls": ["113x203-causal", "1x339"],
    "warning": False,
}


def run(status: str = "CLEAN", *hazards: dict[str, Any], tool: str = "memcheck") -> dict[str, Any]:
    return {"tool": tool, "status": status, "calls": ["a"], "hazards": list(hazards)}


def document(*runs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "tool": "2026.4.0.0",
        "reason": None,
        "device": {"capability": "cpu"},
        "candidates": [{"name": "kernel", "runs": list(runs)}],
        "incomplete": [],
        **more,
    }


def claims(*runs: dict[str, Any], **more: Any) -> list[tuple[Verdict, str]]:
    return list(sanitized.claims(sanitized.read(document(*runs, **more))))


def test_a_hazard_is_unsafe_with_its_words_its_tool_and_a_call_that_shows_it() -> None:
    assert claims(run("HAZARD", HAZARD), run(tool="racecheck")) == [
        (
            Verdict.UNSAFE,
            "kernel under memcheck: Invalid __global__ read of size 16 bytes in _copy at "
            "planted.py:17 (in 113x203-causal and 1 more)",
        )
    ]


def test_what_may_be_intended_claims_nothing_and_is_kept() -> None:
    warning = {**HAZARD, "warning": True}
    assert claims(run("CLEAN", warning)) == []
    found = sanitized.read(document(run("CLEAN", warning)))
    assert found is not None
    assert found.hazards[0].warning


def test_a_cell_of_which_a_tool_told_nothing_but_misreadings_was_not_seen_clean() -> None:
    unclear = run("UNCLEAR", {**HAZARD, "warning": True}, tool="racecheck")
    assert claims(unclear) == [(Verdict.UNVERIFIED, "sanitize: no candidate could be looked at")]
    found = sanitized.read(document(run(), unclear))
    assert list(sanitized.claims(found)) == []
    assert sanitized.summary(found) == "; 1 run of compute-sanitizer clean"


def test_what_was_not_looked_at_is_unverified_and_never_clean() -> None:
    absent = {"reason": "not found", "incomplete": ["not found"], "candidates": [], "tool": None}
    assert claims(**absent) == [(Verdict.UNVERIFIED, "sanitize: not found")]
    late = claims(run("INCOMPLETE"), incomplete=["kernel memcheck: no end within 600 s"])
    assert late == [(Verdict.UNVERIFIED, "sanitize: kernel memcheck: no end within 600 s")]
    assert claims(candidates=[{"name": "kernel", "runs": []}]) == [
        (Verdict.UNVERIFIED, "sanitize: no candidate could be looked at")
    ]


def test_a_stage_that_did_not_run_claims_nothing() -> None:
    assert sanitized.read({}) is None
    assert list(sanitized.claims(None)) == []
    assert sanitized.summary(None) == ""


def test_a_clean_cell_says_so_beside_its_numbers_and_a_hazard_makes_it_unsafe() -> None:
    clean = record(Stage.SANITIZE, document(run(), run(tool="racecheck")))
    said = judge(cell(), {**whole(), Stage.SANITIZE: clean}, Policy())
    assert said.verdict is Verdict.SAFE
    assert said.reason.endswith("(torch-cpu-flash); 2 runs of compute-sanitizer clean")
    found = record(Stage.SANITIZE, document(run("HAZARD", HAZARD)))
    said = judge(cell(), {**whole(), Stage.SANITIZE: found}, Policy())
    assert said.verdict is Verdict.UNSAFE
    assert said.sanitizer is not None


def test_a_matrix_that_asks_for_it_is_unverified_without_it() -> None:
    said = judge(cell(), whole(), Policy(), checks=("correctness", "sanitize"))
    assert (said.verdict, said.reason) == (Verdict.UNVERIFIED, "sanitize did not run")
