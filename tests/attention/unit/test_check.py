"""A kernel of one's own: every broken promise has a name, and only a right kernel passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pinproof_cell.judge.findings import findings
from pinproof_cell.suite import check
from pinproof_cell.suite.cases import suite
from pinproof_cell.suite.supervise import REPEATS, Run, Suite, supervise

HERE = Path(__file__).parent
SOURCE = Path(check.__file__).parents[2]


def provider(name: str, file: str = "naughty.py") -> str:
    return f"{HERE / file}:{name}"


def first(beginning: str) -> str:
    return next(case.id for case in suite() if case.id.startswith(beginning))


def judged(name: str, cases: list[str], limit: float = 20.0) -> Run:
    """Run a provider alone: what the harness says of itself is another test's."""
    return supervise(
        name,
        Suite(
            directory=None,
            cases=cases,
            target="cpu",
            case_limit=limit,
            most_deaths=check.MOST_DEATHS,
            say=lambda line: None,
        ),
    )


BREACHES = {
    first("1x339"): ("contract", "shape"),
    first("3x799"): ("contract", "dtype"),
    first("5x1"): ("contract", "device"),
    first("64x1100"): ("output", "non_finite"),
    first("77x77"): ("contract", "aliases-input"),
    first("97x160"): ("contract", "type"),
    first("100x130"): ("call", "raises"),
    first("108x256"): ("contract", "type"),
    first("113x203"): ("contract", "input-changed"),
    first("130x2"): ("contract", "dtype"),
    first("203x113"): ("lse", "lse_error"),
    first("257x257"): ("output", "max_z"),
}


def test_every_broken_promise_has_its_name() -> None:
    """Shape, type, device, NaN, views, changed inputs, errors and numbers are told apart."""
    right = first("128x128")
    run = judged(provider("naughty"), [*BREACHES, right, f"{REPEATS}5"])
    results = {case["id"]: case for case in run.cases}
    named = {case: findings(results[case])[0] for case in BREACHES}
    assert {case: (f["check"], f["statistic"]) for case, f in named.items()} == BREACHES
    assert results[right]["status"] == results[f"{REPEATS}5"]["status"] == "PASS"
    assert not any("Traceback" in found["reason"] for found in named.values())
    assert named[first("257x257")]["value"] > named[first("257x257")]["limit"]
    verdict, reason, failing = check.verdict_of(run, [])
    assert verdict == check.FAIL
    assert reason.startswith("contract, shape: out is")
    assert {found["case"] for found in failing} == set(BREACHES)


def test_a_crash_and_a_hang_are_crash() -> None:
    """A provider that dies or never answers is CRASH, with the case, and the rest is judged."""
    chosen = [first("128x128"), first("1x339"), first("3x799")]
    run = judged(provider("moody", "moody.py"), chosen, limit=2.0)
    verdict, reason, failing = check.verdict_of(run, [])
    assert verdict == check.CRASH
    assert reason == f"process, crash: killed by SIGSEGV ({chosen[1]})"
    assert [found["statistic"] for found in failing] == ["crash", "hang"]
    assert run.cases[0]["status"] == "PASS"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (provider("nobody"), "has no callable 'nobody'"),
        (provider("good", "nothing.py"), "no file"),
        (provider("misspelt"), "unknown features: casual"),
    ],
)
def test_a_provider_that_does_not_load_fails_with_the_cause(name: str, told: str) -> None:
    """No such file, no such name and a misspelt feature are FAIL, and say what is wrong."""
    verdict, reason, failing = check.verdict_of(judged(name, [first("128x128")]), [])
    assert verdict == check.FAIL
    assert told in reason
    assert failing[0]["check"] == "load"


def test_a_provider_that_dies_while_it_is_imported_is_crash(tmp_path: Path) -> None:
    """An import that ends the process is CRASH."""
    path = tmp_path / "dies.py"
    path.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n", encoding="utf-8")
    verdict, reason, _ = check.verdict_of(judged(f"{path}:f", [first("128x128")]), [])
    assert verdict == check.CRASH
    assert reason.endswith("killed by SIGABRT")


def test_a_provider_that_refuses_everything_never_passes() -> None:
    """Refusing every case proves nothing, and nothing proved is FAIL."""
    run = judged(provider("refuses"), [first("128x128"), f"{REPEATS}5"])
    assert {case["status"] for case in run.cases} == {"UNSUPPORTED"}
    assert check.verdict_of(run, [])[:2] == (
        check.FAIL,
        "the provider supports none of the cases: nothing was proved",
    )


def result(status: str, *reasons: str) -> dict[str, Any]:
    stats = {"max_z": 9.0} if status != "CRASH" else {}
    return {"id": "a-case", "status": status, "stats": stats, "reasons": list(reasons)}


def test_the_gravest_result_is_the_verdict() -> None:
    """DEGRADED alone is DEGRADED; a broken harness outweighs all that the provider did."""
    fine, slight = result("PASS"), result("DEGRADED", "max|z| 9 > 8")
    run = Run({"reason": None}, [fine, slight])
    assert check.verdict_of(run, [])[0] == check.DEGRADED
    assert check.verdict_of(run, ["triton-ref a-case: max|z| 30 > 25"])[0] == check.HARNESS_BROKEN
    flaky = result("FLAKY", "three runs on the same inputs: FAIL, PASS, PASS")
    assert check.verdict_of(Run({"reason": None}, [slight, flaky]), [])[0] == check.FAIL
    assert check.verdict_of(Run({"reason": None}, [fine]), [])[0] == check.PASS


def test_quick_holds_every_shape_of_full() -> None:
    """The quick suite asks every shape and feature of the full one, but for no keys at all."""
    cases = {case.id: case for case in suite()}
    quick, full = ([cases[name] for name in check.chosen(word)] for word in ("quick", "full"))
    assert len(full) == len(cases)
    assert {case.seqlen_q * 10_000 + case.seqlen_k for case in full if case.seqlen_k} == {
        case.seqlen_q * 10_000 + case.seqlen_k for case in quick
    }
    assert frozenset().union(*(case.features for case in full)) - frozenset().union(
        *(case.features for case in quick)
    ) == {"no-keys"}


def call(*words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(part for part in (str(SOURCE), os.environ.get("PYTHONPATH")) if part)
    return subprocess.run(
        [sys.executable, "-m", "pinproof_cell", "check", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
        check=False,
    )


def test_a_right_kernel_passes_from_the_command_line(tmp_path: Path) -> None:
    """The whole verb: status 0, PASS, and a harness that was judged too."""
    out = tmp_path / "check.json"
    done = call("--provider", provider("good"), "--json", str(out))
    document = json.loads(out.read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert document["verdict"] == "PASS"
    assert document["failing"] == []
    assert document["harness"]["status"] == "PASS"
    assert all(case["status"] == "PASS" for case in document["cases"])
    assert document["seconds"] < 60 * max(1.0, os.getloadavg()[0])


def test_the_help_shows_the_signature_and_an_example() -> None:
    """--help holds all that one needs to write a provider."""
    done = call("--help")
    assert done.returncode == 0
    assert "-> (out, lse)" in done.stdout
    assert "--provider mykernel.py:attention" in done.stdout
