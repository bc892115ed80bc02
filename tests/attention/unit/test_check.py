"""A kernel of one's own: every broken promise has a name, and only a right kernel passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pinproof_cell.suite import absent, check, checks
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.supervise import Run, Suite, supervise

HERE = Path(__file__).parent
SOURCE = Path(check.__file__).parents[2]


def provider(name: str, file: str = "naughty.py") -> str:
    return f"{HERE / file}:{name}"


def first(beginning: str) -> str:
    return next(check.id for check in checks.suite() if check.id.startswith(beginning))


#: The harness's own vote: what it says of itself is another test's.
SOUND: dict[str, Any] = {"status": "PASS", "failures": []}
REPEATS = "repeats50@128x128-d64-bf16-diffuse"


def judged(name: str, chosen: list[str], limit: float = 20.0) -> Run:
    """Run a provider alone."""
    return supervise(
        name,
        Suite(
            directory=None,
            checks=chosen,
            target="cpu",
            check_limit=limit,
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
    first("200x200"): ("call", "raises"),
    first("203x113"): ("lse", "lse_error"),
    first("257x257"): ("output", "max_z"),
}


def test_every_broken_promise_has_its_name() -> None:
    """Shape, type, device, NaN, views, changed inputs, errors and numbers are told apart."""
    right = first("128x128")
    run = judged(provider("naughty"), [*BREACHES, right, REPEATS])
    results = {case["id"]: case for case in run.checks}
    named = {case: results[case]["findings"][0] for case in BREACHES}
    assert {case: (f["check"], f["statistic"]) for case, f in named.items()} == BREACHES
    assert results[right]["status"] == results[REPEATS]["status"] == "PASS"
    assert not any("Traceback" in found["text"] for found in named.values())
    assert named[first("257x257")]["value"] > named[first("257x257")]["limit"]
    verdict, reason, failing = check.verdict_of(run, SOUND)
    assert verdict == check.FAIL
    assert reason.startswith("contract, shape: out is")
    assert {found["case"] for found in failing} == set(BREACHES)


def test_a_crash_and_a_hang_are_crash() -> None:
    """A provider that dies or never answers is CRASH, with the case, and the rest is judged."""
    chosen = [first("128x128"), first("1x339"), first("3x799")]
    run = judged(provider("moody", "moody.py"), chosen, limit=2.0)
    verdict, reason, failing = check.verdict_of(run, SOUND)
    assert verdict == check.CRASH
    assert reason == f"process, crash: killed by SIGSEGV ({chosen[1]})"
    assert [found["statistic"] for found in failing] == ["crash", "hang"]
    assert run.checks[0]["status"] == "PASS"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (provider("nobody"), "has no callable 'nobody'"),
        (provider("good", "nothing.py"), "no file"),
        (provider("misspelt"), "unknown features: casual"),
        (provider("a_word"), "`supports` is 'causal', not a set of names of features"),
        (provider("no_set"), "`supports` is None, not a set of names of features"),
        (provider("no_number"), "`lse_on_empty_rows` is 'zero', not a number"),
        (provider("no_backward"), "`backward` is 'no', not callable"),
    ],
)
def test_a_provider_that_does_not_load_fails_with_the_cause(name: str, told: str) -> None:
    """No such file, no such name and a wrong attribute are FAIL, and say what is wrong."""
    verdict, reason, failing = check.verdict_of(judged(name, [first("128x128")]), SOUND)
    assert verdict == check.FAIL
    assert told in reason
    assert failing[0]["check"] == "load"


def test_a_provider_that_dies_while_it_is_imported_is_crash(tmp_path: Path) -> None:
    """An import that ends the process is CRASH."""
    path = tmp_path / "dies.py"
    path.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n", encoding="utf-8")
    verdict, reason, _ = check.verdict_of(judged(f"{path}:f", [first("128x128")]), SOUND)
    assert verdict == check.CRASH
    assert "killed by SIGABRT while the candidate was loaded" in reason


def test_a_provider_that_moves_torch_s_default_device_fails_by_that(tmp_path: Path) -> None:
    """It is the provider's failure and not the machine's, in a call and in its import."""
    run = judged(provider("elsewhere"), [first("128x128")])
    (finding,) = run.checks[0]["findings"]
    assert (run.checks[0]["status"], finding["statistic"]) == ("FAIL", "default-device")
    path = tmp_path / "moves.py"
    path.write_text("import torch\ntorch.set_default_device('meta')\nf = print\n")
    run = judged(f"{path}:f", [first("128x128")])
    assert run.session["reason"] == "its import changed torch's default device"


def test_what_does_not_load_costs_one_check_of_the_vote_and_not_all() -> None:
    """A typo in the name is told in seconds, in a document of the usual form."""
    found = check.run(provider("nobody"), say=lambda line: None)
    assert found["verdict"] == check.FAIL
    assert "has no callable 'nobody'" in found["reason"]
    assert (found["cases"], found["harness"]["status"]) == ([], "PASS")
    assert found["harness"]["cases"] == 1


def test_what_loads_is_asked_every_check() -> None:
    """The look at whether it loads is no judgement: all that was chosen is asked after it."""
    chosen = [first("128x128"), first("1x339")]
    found = check.run(provider("good"), checks=chosen, say=lambda line: None)
    assert [case["id"] for case in found["cases"]] == chosen
    assert (found["verdict"], found["harness"]["cases"]) == (check.PASS, 2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--provider", str(HERE / "naughty.py")), "a provider is FILE.py:NAME"),
        (("--candidate", "nope"), "a provider is FILE.py:NAME, and there is no candidate 'nope'"),
        (("--provider", "gone.py:f"), "no file 'gone.py'"),
    ],
)
def test_a_name_of_nothing_is_status_2_before_any_work(
    words: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    done = call(*words, "--json", str(tmp_path / "check.json"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {told}")
    assert done.stderr.count("\n") == 1


def test_a_provider_that_refuses_everything_never_passes() -> None:
    """Refusing every case proves nothing, and nothing proved is FAIL."""
    run = judged(provider("refuses"), [first("128x128"), REPEATS])
    assert {case["status"] for case in run.checks} == {"UNSUPPORTED"}
    assert check.verdict_of(run, SOUND)[:2] == (
        check.FAIL,
        "the provider supports none of the checks: nothing was proved",
    )


def result(status: str, *, infra: bool = False) -> dict[str, Any]:
    finding = {"check": "output", "statistic": "max_z", "value": 9.0, "limit": 8.0}
    findings = [] if status == "PASS" else [finding | {"text": f"{status} is why"}]
    return {"id": "a-case", "status": status, "findings": findings, "infra": infra}


def test_the_gravest_result_is_the_verdict() -> None:
    """A crash outweighs wrong numbers, those a machine that failed, that less precision."""
    fine, slight = result("PASS"), result("DEGRADED")
    unrun = result("NOT-RUN", infra=True)
    for statuses, verdict in (
        ([fine], check.PASS),
        ([fine, slight], check.DEGRADED),
        ([fine, slight, unrun], check.INCONCLUSIVE),
        ([unrun, slight, result("FLAKY")], check.FAIL),
        ([result("FLAKY"), result("HANG"), unrun], check.CRASH),
    ):
        assert check.verdict_of(Run({"reason": None}, statuses), SOUND)[0] == verdict


def test_a_broken_harness_says_nothing_of_the_provider() -> None:
    """Our own kernel wrong is HARNESS-BROKEN; our machine failing is INCONCLUSIVE."""
    run = Run({"reason": None}, [result("PASS")])
    failures = [{"case": "triton-ref a-case", "reason": "max|z| 30 > 25"}]
    broken = {"status": "FAIL", "failures": failures}
    assert check.verdict_of(run, broken)[:2] == (
        check.HARNESS_BROKEN,
        "triton-ref a-case: max|z| 30 > 25",
    )
    assert check.verdict_of(run, broken | {"status": "NOT-RUN"})[0] == check.INCONCLUSIVE


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
    statuses = {case["status"] for case in document["cases"]}
    assert statuses == {"PASS", "UNSUPPORTED"}
    assert document["seconds"] < 60 * max(1.0, os.getloadavg()[0])


def test_the_help_shows_the_signature_and_an_example() -> None:
    """--help holds all that one needs to write a provider."""
    done = call("--help")
    assert done.returncode == 0
    assert "-> (out, lse)" in done.stdout
    assert "--provider mykernel.py:attention" in done.stdout
    assert "--suite full \\\n    --json results/" in done.stdout


def test_what_a_build_left_out_is_neither_a_failure_nor_a_pass() -> None:
    """A refusal that the build explains is told apart from one that nothing explains."""
    plain, capped, sloped = first("128x128"), first("128x217"), first("108x256")
    run = judged(provider("left_out"), [plain, capped, sloped])
    supports = run.session["supports"]
    found = {
        result["id"]: absent.marked(result, checks.by_id(result["id"]), ["softcap"], supports)
        for result in run.checks
    }
    assert [found[name]["status"] for name in (plain, capped, sloped)] == [
        "PASS",
        "UNSUPPORTED",
        "UNSUPPORTED",
    ]
    assert [found[name]["absent"] for name in (plain, capped, sloped)] == [[], ["softcap"], []]
    bare = absent.marked(run.checks[1], checks.by_id(capped), ["softcap"], {"bf16", "fp16"})
    assert bare["absent"] == [], "what a candidate does not admit is no matter of its build"


@pytest.mark.parametrize(
    ("case", "features"),
    [
        (Case(8, 8), []),
        (Case(8, 8, 160), ["uneven_k"]),
        (Case(8, 8, 64, head_dim_v=40), ["uneven_k"]),
        (Case(8, 8, window=(3, 0), dropout=0.1, backward=True), ["backward", "dropout", "local"]),
        (Case(8, 8, alibi=True, softcap=2.0), ["alibi", "softcap"]),
    ],
)
def test_each_feature_that_a_build_can_lack_is_seen_in_a_call(
    case: Case, features: list[str]
) -> None:
    assert absent.asked(case, absent.LEFT_OUT) == features
