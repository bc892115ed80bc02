"""The second vote: our own kernel put to every check, before anything is said of a candidate.

Where our own kernel does not pass, either it or the rule is wrong, and nothing is said of anybody.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pinproof_cell.suite.checks import Repeats, by_id
from pinproof_cell.suite.supervise import Run, Suite, supervise

PASS, FAIL, CRASH, NOT_RUN = "PASS", "FAIL", "CRASH", "NOT-RUN"


def modes(device: str) -> tuple[str, ...]:
    """Return the modes of our kernel that vote: in the interpreter both are one and the same."""
    return ("triton-ref",) if device == "cpu" else ("triton-ref", "triton-fast")


def ballot(suite: Suite) -> Suite:
    """Return what of `suite` our own kernel votes on."""
    if suite.device != "cpu":
        return suite
    # The interpreter is slow and knows no races: calling it again and again proves nothing.
    names = [name for name in suite.checks if not isinstance(by_id(name), Repeats)]
    return replace(suite, checks=names)


def vote(suite: Suite) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Put `suite` to our own kernel; returns the harness's part of a document, and the device."""
    votes = {mode: supervise(mode, ballot(suite)) for mode in modes(suite.device)}
    return summary(votes), next(iter(votes.values())).session.get("device")


def summary(votes: Mapping[str, Run]) -> dict[str, Any]:
    """Sum up the votes: one failure, and no judgement counts.

    ``cases`` are the checks that passed. NOT-RUN is the machine's failure alone; what our kernel
    does not support, it does not vote on.
    """
    found = [(mode, check) for mode, vote in votes.items() for check in vote.checks]
    bad = [(mode, check) for mode, check in found if check["status"] not in (PASS, "UNSUPPORTED")]
    failures = [
        {"case": f"{mode} {check['id']}", "reason": "; ".join(check["reasons"])}
        for mode, check in bad
    ]
    failures += [
        {"case": mode, "reason": vote.session.get("reason") or "the child told nothing"}
        for mode, vote in votes.items()
        if not vote.checks
    ]
    statuses = {check["status"] for _, check in bad}
    if statuses & {CRASH, "HANG"}:
        status = CRASH
    elif bad and all(check["infra"] for _, check in bad):
        status = NOT_RUN
    else:
        status = FAIL if failures else PASS
    return {
        "status": status,
        "cases": sum(check["status"] == PASS for _, check in found),
        "worst": worst([check for _, check in found]),
        "failures": failures,
    }


def worst(checks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the largest max|z| of the checks that passed through the judge, and where."""
    judged = [check for check in checks if "max_z" in check["stats"]]
    if not judged:
        return None
    found = max(judged, key=lambda check: check["stats"]["max_z"])
    return {"statistic": "max_z", "value": found["stats"]["max_z"], "case": found["id"]}
