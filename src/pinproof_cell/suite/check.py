"""Judge a user's own kernel: the harness by its own rule first, then the provider, in children.

Imports no torch: nothing that a provider does can end this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pinproof_cell.judge import thresholds
from pinproof_cell.judge.findings import findings
from pinproof_cell.request import SCHEMA
from pinproof_cell.suite.cases import suite as all_cases
from pinproof_cell.suite.supervise import REPEATS, Run, Suite, supervise
from pinproof_cell.world import child

PASS, DEGRADED, FAIL, CRASH = "PASS", "DEGRADED", "FAIL", "CRASH"
HARNESS_BROKEN = "HARNESS-BROKEN"

#: By suite: calls compared bit by bit, and how long one case may take on a CPU and on a GPU.
REPEAT = {"quick": 50, "full": 250}
LIMIT = {"quick": {"cpu": 10.0, "cuda": 120.0}, "full": {"cpu": 120.0, "cuda": 300.0}}
#: After so many dead children the verdict is clear, and a report should not take all day.
MOST_DEATHS = 3

EXAMPLE = """\
the callable:
  f(q, k, v, *, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
    alibi_slopes=None) -> (out, lse)
  q is (batch, seqlen_q, nheads, headdim), k and v (batch, seqlen_k, nheads_k, headdim); out is
  like q, lse float32 (batch, nheads, seqlen_q), natural log. Optional: f.supports, a set of
  feature names, and f.lse_on_empty_rows.

example:
  python -m pinproof_cell check --provider mykernel.py:attention --suite quick --json check.json

exit status: 0 the verdict is PASS; 1 it is DEGRADED, FAIL, CRASH or HARNESS-BROKEN; 2 wrong words
"""


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    sub.add_argument("--provider", required=True, metavar="FILE.py:NAME", help="the callable")
    sub.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    sub.add_argument("--suite", default="quick", choices=("quick", "full"))
    sub.add_argument("--seed", type=int, default=0, help="of the inputs")


def main(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Run the verb; returns its document and the exit status."""
    document = run(options.provider, device=options.device, suite=options.suite, seed=options.seed)
    print(table(document))
    return document, 0 if document["verdict"] == PASS else 1


def chosen(suite: str) -> tuple[str, ...]:
    """Return the ids of the cases of a suite; quick is every shape in two of its four guises."""
    cases = all_cases()
    if suite == "quick":
        guises = {("fp16", "diffuse"), ("bf16", "peaked")}
        grid = {replace(case, dtype="bf16", kind="diffuse") for case in cases[:48]}
        cases = tuple(
            case
            for case in cases
            if case.seqlen_k
            and (
                (case.dtype, case.kind) in guises
                or replace(case, dtype="bf16", kind="diffuse") not in grid
            )
        )
    return tuple(case.id for case in cases)


def run(
    provider: str,
    *,
    device: str = "cpu",
    suite: str = "quick",
    seed: int = 0,
    cases: Sequence[str] | None = None,
    case_limit: float | None = None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> dict[str, Any]:
    """Judge ``FILE.py:NAME``; `cases` narrows the suite. Returns the document of the verb."""
    started = time.monotonic()
    wanted = chosen(suite) if cases is None else tuple(cases)
    target, missing = _target(device)
    plan = Suite(
        directory=None,
        cases=wanted,
        target=target,
        seed=seed,
        case_limit=case_limit or LIMIT[suite][device],
        most_deaths=MOST_DEATHS,
        say=say,
    )
    modes = ("triton-ref",) if device == "cpu" else ("triton-ref", "triton-fast")
    votes = {} if missing else {mode: supervise(mode, plan) for mode in modes}
    broken = [missing] if missing else _broken(votes)
    asked = replace(plan, cases=(*wanted, f"{REPEATS}{REPEAT[suite]}"))
    judged = Run({}, []) if broken else supervise(provider, asked)
    verdict, reason, failing = verdict_of(judged, broken)
    return {
        "schema": SCHEMA,
        "stage": "check",
        "provider": provider,
        "suite": suite,
        "seed": seed,
        "device": next((vote.session.get("device") for vote in votes.values()), None),
        "thresholds": {"target": target, "source": thresholds.load(target).source},
        "verdict": verdict,
        "reason": reason,
        "failing": failing,
        "unsupported": [
            {"case": case["id"], "reason": "; ".join(case["reasons"])}
            for case in judged.cases
            if case["status"] == "UNSUPPORTED"
        ],
        "harness": {"status": HARNESS_BROKEN if broken else PASS, "failures": broken},
        "cases": judged.cases,
        "seconds": round(time.monotonic() - started, 1),
    }


def _target(device: str) -> tuple[str, str]:
    """Return whose thresholds count, and why the device cannot be used, if so."""
    if device == "cpu":
        return "cpu", ""
    ask = "from pinproof_cell import device; print(device.facts('cuda')['capability'])"
    ended = child.run(["-c", ask], target="cuda", timeout=300)
    words = ended.output.split()
    if ended.reason or not words:
        return "cuda", f"the device does not answer: {ended.reason or 'no capability'}"
    return words[-1], "this machine has no CUDA device" if words[-1] == "cpu" else ""


def _broken(votes: Mapping[str, Run]) -> list[str]:
    """Return where our own kernel is not what our own rule wants: then no judgement counts."""
    found = []
    for mode, vote in votes.items():
        if not vote.cases:
            found.append(f"{mode}: {vote.session.get('reason') or 'the child told nothing'}")
        found += [
            f"{mode} {case['id']}: {'; '.join(case['reasons'])}"
            for case in vote.cases
            if case["status"] != PASS
        ]
    return found


def verdict_of(judged: Run, broken: Sequence[str]) -> tuple[str, str, list[dict[str, Any]]]:
    """Return verdict, one line of reason, and the failing checks."""
    if broken:
        return HARNESS_BROKEN, broken[0], []
    if judged.session.get("reason"):
        return FAIL, f"the provider does not load: {judged.session['reason']}", [_unloaded(judged)]
    if not judged.session:
        # No child got as far as its first line: importing the file ended it.
        crash = _unloaded(judged)
        return CRASH, f"importing the provider ended its process: {crash['reason']}", [crash]
    wrong = [case for case in judged.cases if case["status"] not in (PASS, "UNSUPPORTED")]
    failing = [found for case in wrong for found in findings(case)]
    statuses = {case["status"] for case in wrong}
    if statuses & {"CRASH", "HANG"}:
        verdict = CRASH
    elif statuses - {DEGRADED}:
        verdict = FAIL
    elif statuses:
        verdict = DEGRADED
    elif not any(case["status"] == PASS and "max_z" in case["stats"] for case in judged.cases):
        return FAIL, "the provider supports none of the cases: nothing was proved", []
    else:
        return PASS, "", []
    return verdict, _sentence(_worst(failing, verdict)), failing


def _unloaded(judged: Run) -> dict[str, Any]:
    reason = judged.session.get("reason") or "; ".join(judged.cases[0]["reasons"])
    return {
        "check": "load",
        "case": None,
        "status": FAIL if judged.session else CRASH,
        "statistic": "import",
        "value": None,
        "limit": None,
        "reason": reason.removeprefix("not run: "),
    }


def _worst(failing: Sequence[dict[str, Any]], verdict: str) -> dict[str, Any]:
    """Return the first finding that has the verdict."""
    words = {CRASH: {"CRASH", "HANG"}, DEGRADED: {DEGRADED}}
    wanted = words.get(verdict, {FAIL, "FLAKY", "ERROR"})
    return next(found for found in failing if found["status"] in wanted)


def _sentence(found: Mapping[str, Any]) -> str:
    return f"{found['check']}, {found['statistic']}: {found['reason']} ({found['case']})"


def table(document: Mapping[str, Any]) -> str:
    """Return the document for a person: the failing checks, then the verdict."""
    lines = [f"{found['status']:9}{_sentence(found)}" for found in document["failing"]]
    lines += [f"harness  {failure}" for failure in document["harness"]["failures"]]
    unsupported = len(document["unsupported"])
    passed = sum(case["status"] == PASS for case in document["cases"])
    counts = f"{passed} of {len(document['cases'])} checks pass"
    counts += f", {unsupported} unsupported" if unsupported else ""
    told = f": {document['reason']}" if document["reason"] else ""
    lines += [f"{document['provider']}: {document['verdict']}{told}"]
    lines += [f"{counts}, {document['seconds']:.0f} s, suite {document['suite']}"]
    return "\n".join(lines)
