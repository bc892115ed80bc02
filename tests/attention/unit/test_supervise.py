"""A candidate that crashes, hangs or wavers becomes evidence, and the rest still runs."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from pinproof_cell import candidates
from pinproof_cell.request import BadRequestError
from pinproof_cell.suite import correctness
from pinproof_cell.suite.cases import FEATURES, suite
from pinproof_cell.suite.supervise import Journal, Suite, supervise

HERE = Path(__file__).parent
MOODY = f"{HERE / 'moody.py'}:moody"


def request_for(directory: Path = HERE.parent) -> dict[str, Any]:
    axes = {"torch": "installed"}
    return {
        "schema": 1, "cell": "cpu-000000", "target": "cpu", "axes": axes,
        "uses": ["serving"], "suite_dir": str(directory), "seed": 0,
    }  # fmt: skip


def first(pattern: str) -> str:
    return next(case.id for case in suite() if re.match(pattern, case.id))


def test_every_bad_day_has_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Crash, hang, error, flaky, wrong, refused and unsupported are told apart, case by case."""
    chosen = {
        first("128x128-d64-bf16"): "PASS",
        first("1x339"): "CRASH",
        first("3x799"): "HANG",
        first("5x1"): "ERROR",
        first("64x1100"): "FLAKY",
        first("77x77"): "FAIL",
        first("97x160"): "UNSUPPORTED",
        first("113x203"): "FAIL",
        first("100x130"): "UNSUPPORTED",
        first("200x200"): "PASS",
    }
    found = correctness.run(request_for(), names=[MOODY], cases=list(chosen), case_limit=3.0)
    assert found["harness"]["status"] == "PASS"
    assert found["harness"]["cases"] == len(chosen)
    (candidate,) = found["candidates"]
    results = {case["id"]: case for case in candidate["cases"]}
    assert {case: result["status"] for case, result in results.items()} == chosen
    crash, hang = results[first("1x339")], results[first("3x799")]
    assert crash["signal"] == "SIGSEGV"
    assert hang["reasons"] == ["no answer in 3 s"]
    assert results[first("5x1")]["reasons"] == ["RuntimeError: bad day"]
    assert "three runs on the same inputs" in results[first("64x1100")]["reasons"][0]
    assert results[first("100x130")]["reasons"][0].endswith("does not admit alibi")
    assert "correctness triton-ref 10/10" in capsys.readouterr().out


def test_no_keys_kill_the_cpu_flash_kernel_and_the_next_case_runs() -> None:
    """torch's CPU flash kernel dies of SIGFPE for no keys; a fresh child takes the next case."""
    chosen = [first("128x0"), first("130x2")]
    found = supervise(
        "torch-cpu-flash",
        Suite(directory=HERE.parent, cases=chosen[::-1], target="cpu", say=lambda line: None),
    )
    results = {case["id"]: case for case in found.cases}
    assert results[chosen[0]]["status"] == "CRASH"
    assert results[chosen[0]]["signal"] == signal.SIGFPE.name
    assert results[chosen[1]]["status"] == "PASS"


def test_a_candidate_that_cannot_load_has_a_reason_and_no_passes() -> None:
    """A child that ends before its first case leaves ERROR for every case, with the cause."""
    chosen = [first("128x128"), first("5x1")]
    found = supervise(
        f"{HERE / 'moody.py'}:nobody",
        Suite(directory=HERE.parent, cases=chosen, target="cpu", say=lambda line: None),
    )
    assert [case["status"] for case in found.cases] == ["ERROR", "ERROR"]
    assert "not run" in found.cases[0]["reasons"][0]


def test_an_unavailable_candidate_says_why() -> None:
    """A candidate without its package has a reason in its session and no cases at all."""
    found = supervise(
        "flash-attn-2",
        Suite(directory=HERE.parent, cases=[first("128x128")], target="cpu", say=lambda line: None),
    )
    assert "flash_attn" in found.session["reason"]
    assert found.cases == []


def test_a_wrong_suite_or_case_is_refused() -> None:
    """A suite_dir without the suite and a case that does not exist are named."""
    with pytest.raises(BadRequestError, match=r"holds no test_attention\.py"):
        correctness.run(request_for(HERE))
    with pytest.raises(BadRequestError, match="no case 'nope'"):
        correctness.run(request_for(), cases=["nope"])


def test_a_torn_last_line_of_the_journal_is_left_out(tmp_path: Path) -> None:
    """What a dying child wrote by half is not read."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add("start", case="a")
    with journal.path.open("a") as stream:
        stream.write('{"event": "end", "ca')
    assert journal.open_case() == "a"


def test_cases_are_unique_and_known() -> None:
    """Each id names one case; twelve shapes, two types, two kinds, and the edges."""
    cases = suite()
    assert len({case.id for case in cases}) == len(cases) >= 48
    assert frozenset().union(*(case.features for case in cases)) <= FEATURES
    assert [case.uses for case in cases if case.seqlen_k == 0] == [("everything",)]


def test_candidates_follow_the_axes() -> None:
    """A cell is asked for what its axes install, and a bundled FlashAttention is vLLM's."""

    def names(device: str, **axes: str) -> list[str]:
        spelled = {name.replace("_", "-"): value for name, value in axes.items()}
        return [found.name for found in candidates.find(spelled, device)]

    torch_only = ["torch-sdpa-flash", "torch-sdpa-cudnn"]
    assert names("cpu", torch="2.13.0") == ["torch-cpu-flash"]
    assert names("cuda", torch="2.11.0") == torch_only
    assert names("cuda", flash_attn="2.8.3", vllm="none") == [*torch_only, "flash-attn-2"]
    assert names("cuda", flash_attn="bundled", vllm="0.24.0") == [
        *torch_only,
        "vllm-fa2",
        "vllm-fa3",
    ]
    with pytest.raises(ValueError, match="no candidate 'torch-cpu'"):
        candidates.get("torch-cpu")
