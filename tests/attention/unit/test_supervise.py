"""A candidate that crashes, hangs or wavers becomes evidence, and the rest still runs."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from pinproof_cell import candidates
from pinproof_cell.request import BadRequestError
from pinproof_cell.suite import checks, correctness
from pinproof_cell.suite.supervise import Suite, supervise

HERE = Path(__file__).parent
MOODY = f"{HERE / 'moody.py'}:moody"


def request_for(directory: Path = HERE.parent) -> dict[str, Any]:
    axes = {"torch": "installed"}
    return {
        "schema": 1, "cell": "cpu-000000", "target": "cpu", "axes": axes,
        "uses": ["serving"], "suite_dir": str(directory), "seed": 0,
    }  # fmt: skip


def first(pattern: str) -> str:
    return next(check.id for check in checks.suite() if re.match(pattern, check.id))


def bad_days() -> dict[str, str]:
    """Return what each of the checks must come to that `moody` knows by its shape."""
    return {
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


def test_every_bad_day_has_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Crash, hang, error, flaky, wrong, refused and unsupported are told apart, case by case."""
    chosen = bad_days()
    found = correctness.run(request_for(), names=[MOODY], checks=list(chosen), check_limit=3.0)
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
        Suite(directory=HERE.parent, checks=chosen[::-1], target="cpu", say=lambda line: None),
    )
    results = {case["id"]: case for case in found.checks}
    assert results[chosen[0]]["status"] == "CRASH"
    assert results[chosen[0]]["signal"] == signal.SIGFPE.name
    assert results[chosen[1]]["status"] == "PASS"


def loaded(text: str, path: Path) -> list[dict[str, Any]]:
    """Return the results of a provider whose file says `text`."""
    file = path / "provider.py"
    file.write_text(f"import os, signal, sys, time\n{text}\n", encoding="utf-8")
    plan = Suite(
        directory=None,
        checks=[first("128x128"), first("5x1")],
        target="cpu",
        start_limit=6.0,
        say=lambda line: None,
    )
    return supervise(f"{file}:f", plan).checks


def test_a_candidate_that_dies_while_it_is_loaded_is_a_crash(tmp_path: Path) -> None:
    """An import that ends the process is CRASH, with its signal, for every check."""
    found = loaded("os.kill(os.getpid(), signal.SIGABRT)", tmp_path)
    assert [(check["status"], check["signal"], check["infra"]) for check in found] == [
        ("CRASH", "SIGABRT", False)
    ] * 2


@pytest.mark.parametrize("text", ["os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(60)"])
def test_what_the_machine_does_is_not_the_candidates(text: str, tmp_path: Path) -> None:
    """SIGKILL, as of a machine without memory, and no end before the first check are NOT-RUN."""
    found = loaded(text, tmp_path)
    assert [(check["status"], check["infra"]) for check in found] == [("NOT-RUN", True)] * 2
    assert "while the candidate was loaded" in found[0]["reasons"][0]


def test_no_memory_is_not_run_and_the_rest_is_asked(tmp_path: Path) -> None:
    """A MemoryError, torch's own words for it and SIGKILL in a check are the machine's."""
    file = tmp_path / "greedy.py"
    file.write_text(
        "import os\nimport torch\nfrom pinproof_cell.mutants.emulation import HONEST\n"
        "def f(q, k, v, **rest):\n"
        "    if q.shape[1] == 5: torch.empty(1 << 60)\n"
        "    if q.shape[1] == 3: raise torch.OutOfMemoryError('CUDA out of memory')\n"
        "    if q.shape[1] == 1: os.kill(os.getpid(), 9)\n"
        "    return HONEST(q, k, v, **rest)\n",
        encoding="utf-8",
    )
    chosen = [first("5x1"), first("3x799"), first("1x339"), first("128x128")]
    plan = Suite(directory=None, checks=chosen, target="cpu", say=lambda line: None)
    found = supervise(f"{file}:f", plan).checks
    assert [(check["status"], check["infra"]) for check in found] == [
        *[("NOT-RUN", True)] * 3,
        ("PASS", False),
    ]


def test_an_unavailable_candidate_says_why() -> None:
    """A candidate without its package has a reason in its session and no cases at all."""
    found = supervise(
        "flash-attn-2",
        Suite(
            directory=HERE.parent, checks=[first("128x128")], target="cpu", say=lambda line: None
        ),
    )
    assert "flash_attn" in found.session["reason"]
    assert found.checks == []


def test_a_wrong_suite_or_case_is_refused() -> None:
    """A suite_dir without the suite and a case that does not exist are named."""
    with pytest.raises(BadRequestError, match=r"holds no test_attention\.py"):
        correctness.run(request_for(HERE))
    with pytest.raises(BadRequestError, match="no check 'nope'"):
        correctness.run(request_for(), checks=["nope"])


def test_candidates_follow_the_axes() -> None:
    """A cell is asked for what its axes install, and a bundled FlashAttention is vLLM's."""

    def names(device: str, **axes: str) -> list[str]:
        spelled = {name.replace("_", "-"): value for name, value in axes.items()}
        return [found.name for found in candidates.find(spelled, device)]

    torch_only = ["torch-sdpa-flash", "torch-sdpa-cudnn", "torch-sdpa-efficient"]
    assert names("cpu", torch="2.13.0") == ["torch-cpu-flash"]
    assert names("cpu", vllm="0.33.0") == ["torch-cpu-flash", "vllm-triton"]
    assert names("cuda", torch="2.11.0") == torch_only
    assert names("cuda", flash_attn="2.8.3", vllm="none") == [*torch_only, "flash-attn-2"]
    assert names("cuda", flash_attn="bundled", vllm="0.24.0") == [
        *torch_only,
        "vllm-fa2",
        "vllm-fa3",
        "vllm-triton",
    ]
    with pytest.raises(ValueError, match="no candidate 'torch-cpu'"):
        candidates.get("torch-cpu")


def test_children_that_share_the_checks_leave_what_one_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On more cores several children run; results keep their order, and a crash its check."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)))
    chosen = bad_days()
    found = supervise(
        MOODY, Suite(directory=None, checks=list(chosen), target="cpu", check_limit=3.0)
    )
    assert {check["id"]: check["status"] for check in found.checks} == chosen
    assert [check["id"] for check in found.checks] == list(chosen)
    assert f"correctness {MOODY} 10/10" in capsys.readouterr().out


def test_what_found_no_memory_in_a_crowd_is_asked_again_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A check whose child was killed from outside runs again, and its answer counts."""
    (tmp_path / "once.py").write_text(
        "import os, pathlib, signal\n"
        "from pinproof_cell.mutants.emulation import HONEST\n"
        "def once(q, k, v, **rest):\n"
        "    mark = pathlib.Path(__file__).with_name('mark')\n"
        "    if q.shape[1] == 113 and not mark.exists():\n"
        "        mark.touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return HONEST(q, k, v, **rest)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    names = [
        check.id for check in checks.suite("quick") if check.id.startswith(("113x203", "128x"))
    ]
    found = supervise(
        f"{tmp_path / 'once.py'}:once",
        Suite(directory=None, checks=names[:8], target="cpu", say=lambda line: None),
    )
    assert (tmp_path / "mark").exists()
    assert {check["status"] for check in found.checks} <= {"PASS", "UNSUPPORTED"}
    assert len(found.checks) == 8
