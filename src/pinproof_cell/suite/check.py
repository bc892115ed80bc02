"""Judge a user's own kernel: the harness by its own rule first, then the provider, in children.

Candidates that are known by name are judged the same way, by `pinproof_cell.suite.survey`.

Imports no torch: nothing that a provider does can end this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pinproof_cell.judge import thresholds
from pinproof_cell.request import SCHEMA, BadRequestError, check_candidate
from pinproof_cell.suite import absent
from pinproof_cell.suite import checks as suites
from pinproof_cell.suite.harness import vote
from pinproof_cell.suite.supervise import Run, Suite, supervise
from pinproof_cell.world import child

PASS, DEGRADED, FAIL, CRASH = "PASS", "DEGRADED", "FAIL", "CRASH"
HARNESS_BROKEN, INCONCLUSIVE = "HARNESS-BROKEN", "INCONCLUSIVE"

#: What makes which verdict, the gravest first.
_GRAVEST = (
    (CRASH, frozenset({"CRASH", "HANG"})),
    (FAIL, frozenset({FAIL, "FLAKY", "ERROR"})),
    (INCONCLUSIVE, frozenset({"NOT-RUN"})),
    (DEGRADED, frozenset({DEGRADED})),
)

#: How long one check may take, by suite and device, in seconds.
LIMIT = {"quick": {"cpu": 30.0, "cuda": 120.0}, "full": {"cpu": 120.0, "cuda": 300.0}}
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
  python -m pinproof_cell check --candidate torch-sdpa-flash vllm-fa3 --device cuda --suite full \\
    --json results/

with --candidate, and with --json a folder, each candidate gets a file NAME.json there

exit status: 0 the verdict is PASS; 1 it is DEGRADED, FAIL, CRASH, or, where nothing can be said of
the kernel, INCONCLUSIVE or HARNESS-BROKEN; 2 wrong words
"""


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    asked = sub.add_mutually_exclusive_group(required=True)
    asked.add_argument("--provider", metavar="FILE.py:NAME", help="the callable, or a known name")
    asked.add_argument("--candidate", nargs="+", metavar="NAME", help="several, known by name")
    sub.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    sub.add_argument("--suite", default="quick", choices=("quick", "full"))
    sub.add_argument("--seed", type=int, default=0, help="of the inputs")
    sub.add_argument(
        "--without",
        default=[],
        action="append",
        choices=sorted(absent.LEFT_OUT),
        help="a feature that its build left out: its refusal is expected; may be repeated",
    )


def main(options: argparse.Namespace) -> tuple[dict[str, Any] | None, int]:
    """Run the verb; returns its document, unless it wrote them, and the exit status."""
    for name in options.candidate or [options.provider]:
        check_candidate(name)
    asked = {name: getattr(options, name) for name in ("device", "suite", "seed", "without")}
    if options.candidate:
        return None, 0 if candidates(options.candidate, options.json, **asked) else 1
    document = run(options.provider, **asked)
    print(table(document))
    return document, 0 if document["verdict"] == PASS else 1


def candidates(
    names: Sequence[str],
    where: Path,
    *,
    device: str,
    suite: str,
    seed: int = 0,
    without: Sequence[str] = (),
    checks: Sequence[str] | None = None,
) -> bool:
    """Judge `names`, a file for each; returns whether all pass. Raises BadRequestError."""
    # It builds upon this module.
    from pinproof_cell.suite import survey

    survey.files(names, where)
    target, missing = _target(device)
    if missing:
        raise BadRequestError(missing)
    plan = _plan(target, device, suite, seed, checks)
    return survey.run(names, plan, where, _about(suite, seed, target), without)


def _plan(target: str, device: str, suite: str, seed: int, checks: Sequence[str] | None) -> Suite:
    return Suite(
        directory=None,
        checks=[check.id for check in suites.suite(suite, device)] if checks is None else checks,
        target=target,
        seed=seed,
        check_limit=LIMIT[suite][device],
        most_deaths=MOST_DEATHS,
        say=lambda line: print(line, flush=True),
    )


def _about(suite: str, seed: int, target: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "stage": "check",
        "suite": suite,
        "seed": seed,
        "thresholds": {"target": target, "source": thresholds.load(target).source},
    }


def run(
    provider: str,
    *,
    device: str = "cpu",
    suite: str = "quick",
    seed: int = 0,
    without: Sequence[str] = (),
    checks: Sequence[str] | None = None,
    check_limit: float | None = None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> dict[str, Any]:
    """Judge ``FILE.py:NAME``; `checks` narrows the suite. Returns the document of the verb."""
    started = time.monotonic()
    target, missing = _target(device)
    plan = _plan(target, device, suite, seed, checks)
    plan = replace(plan, say=say, check_limit=check_limit or plan.check_limit)
    no_vote = {"status": HARNESS_BROKEN, "failures": [{"case": device, "reason": missing}]}
    judged = Run({}, []) if missing else supervise(provider, _one_check(plan))
    loads = bool(judged.session) and not judged.session["reason"]
    # Of what does not load nothing more is asked, and one vote says that the harness works.
    voted, seen = (no_vote, None) if missing else vote(plan if loads else _one_check(plan))
    if voted["status"] != PASS:
        judged = Run({}, [])
    elif loads:
        judged = supervise(provider, plan)
    return {
        **_about(suite, seed, target),
        "provider": provider,
        "device": seen,
        **told(judged, voted, without),
        "seconds": round(time.monotonic() - started, 1),
    }


def _one_check(plan: Suite) -> Suite:
    """Return the first check of `plan` alone, to see if a provider loads at all."""
    return replace(plan, checks=plan.checks[:1], say=lambda line: None)


def told(judged: Run, voted: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """Return what a document says of one kernel and of the vote before it."""
    verdict, reason, failing = verdict_of(judged, voted)
    supports = judged.session.get("supports") or []
    cases = [
        absent.marked(found, check, without, supports) | suites.facts(check)
        for found in judged.checks
        for check in (suites.by_id(found["id"]),)
    ]
    return {
        "version": judged.session.get("version"),
        "extensions": judged.session.get("extensions") or [],
        "without": list(without),
        "verdict": verdict,
        "reason": reason,
        "failing": failing,
        "unsupported": [
            {
                "case": check["id"],
                "reason": "; ".join(check["reasons"]),
                "absent": check["absent"],
            }
            for check in cases
            if check["status"] == "UNSUPPORTED"
        ],
        "harness": dict(voted),
        "cases": cases,
    }


def _target(device: str) -> tuple[str, str]:
    """Return whose thresholds count, and why the device cannot be used, if so."""
    if device == "cpu":
        return "cpu", ""
    ask = "from pinproof_cell.world import device; print(device.facts('cuda')['capability'])"
    ended = child.run(["-c", ask], target="cuda", timeout=300)
    words = ended.output.split()
    if ended.reason or not words:
        return "cuda", f"the device does not answer: {ended.reason or 'no capability'}"
    return words[-1], "this machine has no CUDA device" if words[-1] == "cpu" else ""


def verdict_of(judged: Run, voted: Mapping[str, Any]) -> tuple[str, str, list[dict[str, Any]]]:
    """Return verdict, one line of reason, and the failing checks."""
    if voted["status"] != PASS:
        first = voted["failures"][0]
        verdict = INCONCLUSIVE if voted["status"] == "NOT-RUN" else HARNESS_BROKEN
        return verdict, f"{first['case']}: {first['reason']}", []
    if reason := judged.session.get("reason"):
        load = {"check": "load", "case": None, "status": FAIL, "statistic": "import"}
        load |= {"value": None, "limit": None, "reason": reason}
        return FAIL, f"the provider does not load: {reason}", [load]
    failing = [
        {
            **{key: finding[key] for key in ("check", "statistic", "value", "limit")},
            "case": check["id"],
            "status": check["status"],
            "reason": finding["text"],
        }
        for check in judged.checks
        if check["status"] not in (PASS, "UNSUPPORTED")
        for finding in check["findings"]
    ]
    statuses = {found["status"] for found in failing}
    for verdict, causes in _GRAVEST:
        if statuses & causes:
            return verdict, _sentence(_first(failing, causes)), failing
    if not any(check["status"] == PASS for check in judged.checks):
        return FAIL, "the provider supports none of the checks: nothing was proved", []
    return PASS, "", []


def _first(failing: Sequence[dict[str, Any]], statuses: frozenset[str]) -> dict[str, Any]:
    return next(found for found in failing if found["status"] in statuses)


def _sentence(found: Mapping[str, Any]) -> str:
    return f"{found['check']}, {found['statistic']}: {found['reason']} ({found['case']})"


def table(document: Mapping[str, Any]) -> str:
    """Return the document for a person: the failing checks, then the verdict."""
    lines = [f"{found['status']:9}{_sentence(found)}" for found in document["failing"]]
    lines += [f"harness  {x['case']}: {x['reason']}" for x in document["harness"]["failures"]]
    expected = sum(bool(refused["absent"]) for refused in document["unsupported"])
    unsupported = len(document["unsupported"]) - expected
    passed = sum(case["status"] == PASS for case in document["cases"])
    counts = f"{passed} of {len(document['cases'])} checks pass"
    counts += f", {unsupported} unsupported" if unsupported else ""
    counts += f", {expected} refused as built" if expected else ""
    told = f": {document['reason']}" if document["reason"] else ""
    name = document.get("provider") or document["candidate"]
    lines += [f"{name}: {document['verdict']}{told}"]
    lines += [f"{counts}, {document['seconds']:.0f} s, suite {document['suite']}"]
    return "\n".join(lines)
