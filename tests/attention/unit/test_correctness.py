"""What the correctness document says of a candidate beside its checks."""

from __future__ import annotations

import math
from typing import Any

from pinproof_cell.suite import checks, correctness
from pinproof_cell.suite.supervise import Run

SESSION = {
    "version": "2.13.0",
    "supports": ["bf16", "causal"],
    "lse_on_empty_rows": 0.0,
    "reason": None,
}


def result(check: str, status: str = "PASS", **more: Any) -> dict[str, Any]:
    """Return what the supervisor makes of one check."""
    common = {"stats": {}, "findings": [], "reasons": [], "infra": False, "signal": None}
    return {"id": check, "status": status, **common, **more}


def candidate(*results: dict[str, Any], name: str = "torch-cpu-flash") -> dict[str, Any]:
    return correctness.entry(name, Run(SESSION, list(results)), "cpu")


def first(feature: str) -> str:
    return next(check.id for check in checks.suite() if feature in check.features)


def test_a_failure_that_is_known_is_named_in_its_check_and_in_the_account() -> None:
    crashed = result(first("no-keys"), "CRASH", signal="SIGFPE")
    found = candidate(crashed, result(first("causal")))
    assert [case["defect"] for case in found["cases"]] == ["torch-cpu-no-keys", None]
    (known,) = found["defects"]
    assert (known["id"], known["cases"]) == ("torch-cpu-no-keys", [crashed["id"]])


def test_a_convention_of_the_candidate_reaches_the_account_through_its_session() -> None:
    rows = result(first("empty-rows"))
    assert candidate(rows)["cases"][0]["defect"] == "torch-cpu-empty-lse"
    cured = Run({**SESSION, "lse_on_empty_rows": -math.inf}, [rows])
    (known,) = correctness.entry("torch-cpu-flash", cured, "cpu")["defects"]
    assert (known["cases"], known["passed"]) == ([], [rows["id"]])


def test_another_candidate_has_none_of_it() -> None:
    found = candidate(result(first("no-keys"), "CRASH", signal="SIGFPE"), name="mine")
    assert found["cases"][0]["defect"] is None
    assert found["defects"] == []


def test_a_candidate_says_what_it_supports_and_one_that_told_nothing_supports_nothing() -> None:
    assert candidate(result(first("causal")))["supports"] == ["bf16", "causal"]
    assert correctness.entry("mine", Run({}, []), "cpu")["supports"] == []


def test_what_the_machine_kept_from_an_asked_use_is_incomplete_and_else_it_is_not() -> None:
    away = result(first("no-keys"), "NOT-RUN", infra=True, reasons=["out of memory"])
    found = [candidate(away, result(first("causal")))]
    good = {"status": "PASS", "failures": []}
    assert list(correctness.incomplete(good, found, ["serving"])) == []
    (told,) = correctness.incomplete(good, found, ["everything"])
    assert told == f"torch-cpu-flash {away['id']}: out of memory"
    (told,) = correctness.incomplete(good, found, [])
    assert "out of memory" in told


def test_a_harness_that_could_not_run_is_incomplete() -> None:
    voted = {"status": "NOT-RUN", "failures": [{"case": "triton-ref x", "reason": "killed"}]}
    assert list(correctness.incomplete(voted, [], ["serving"])) == ["harness: killed"]


def test_what_the_build_of_a_candidate_left_out_is_named_in_each_check_that_it_explains() -> None:
    features = {"bf16", "fp16", "causal", "causal-rectangular", "window", "gqa"}
    session = {**SESSION, "supports": sorted(features)}
    window = next(
        each.id
        for each in checks.suite()
        if "window" in each.features and each.features <= features
    )
    asked = [result(window, "UNSUPPORTED"), result(first("alibi"), "UNSUPPORTED")]
    run = Run(session, [*asked, result(first("causal"))])
    found = correctness.entry("flash-attn-2", run, "cpu", without=["local", "alibi"])
    assert found["without"] == ["local", "alibi"]
    assert [case["absent"] for case in found["cases"]] == [["local"], [], []]
