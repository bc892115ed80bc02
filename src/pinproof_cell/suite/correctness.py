"""The correctness stage: the harness judged by its own rule, then every candidate of the cell.

Imports no torch: children do, so that nothing that they die of can end this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinproof_cell import candidates
from pinproof_cell.judge import thresholds
from pinproof_cell.request import SCHEMA, BadRequestError, Request
from pinproof_cell.suite.cases import suite as all_cases
from pinproof_cell.suite.supervise import Run, Suite, supervise


def run(
    document: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    case_limit: float | None = None,
) -> dict[str, Any]:
    """Run the suite of a request; returns the correctness document.

    `names` and `cases` narrow it to some candidates (also ``FILE.py:NAME``) and case ids. Raises
    BadRequestError for a suite that is not there and a case that does not exist.
    """
    request = Request.parse(dict(document))
    uses = {case.id: case.uses for case in all_cases()}
    for case in cases or ():
        if case not in uses:
            raise BadRequestError(f"no case {case!r}")
    suite = Suite(
        directory=_directory(request),
        cases=tuple(uses) if cases is None else tuple(cases),
        target=request.target,
        seed=request.seed,
        case_limit=case_limit,
        say=lambda line: print(line, flush=True),
    )
    if names is None:
        names = [found.name for found in candidates.find(request.axes, suite.device)]
    modes = ("triton-ref",) if suite.device == "cpu" else ("triton-ref", "triton-fast")
    votes = [supervise(mode, suite) for mode in modes]
    runs = [(name, supervise(name, suite)) for name in names]
    return {
        "schema": SCHEMA,
        "stage": "correctness",
        "cell": request.cell,
        "device": votes[0].session.get("device"),
        "seed": request.seed,
        "thresholds": {"target": request.target, "source": thresholds.load(request.target).source},
        "harness": _harness(dict(zip(modes, votes, strict=True))),
        "candidates": [_candidate(name, result, uses) for name, result in runs],
    }


def _directory(request: Request) -> Path:
    directory = Path(request.suite_dir)
    if not (directory / "test_attention.py").is_file():
        raise BadRequestError(f"suite_dir {request.suite_dir!r} holds no test_attention.py")
    return directory.resolve()


def _harness(votes: Mapping[str, Run]) -> dict[str, Any]:
    """Sum up our own kernel: anything but PASS in every case, and no judgement here counts."""
    cases = [(mode, case) for mode, vote in votes.items() for case in vote.cases]
    failures = [
        {"case": f"{mode} {case['id']}", "reason": "; ".join(case["reasons"])}
        for mode, case in cases
        if case["status"] != "PASS"
    ]
    failures += [
        {"case": mode, "reason": vote.session.get("reason") or "the child told nothing"}
        for mode, vote in votes.items()
        if not vote.cases
    ]
    died = any(case["status"] in ("CRASH", "HANG") for _, case in cases)
    return {
        "status": "CRASH" if died else "FAIL" if failures else "PASS",
        "cases": len(cases),
        "worst": _worst([case for _, case in cases]),
        "failures": failures,
    }


def _worst(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    judged = [case for case in cases if "max_z" in case["stats"]]
    if not judged:
        return None
    worst = max(judged, key=lambda case: case["stats"]["max_z"])
    return {"statistic": "max_z", "value": worst["stats"]["max_z"], "case": worst["id"]}


def _candidate(name: str, result: Run, uses: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    session = result.session
    return {
        "name": name,
        "version": session.get("version"),
        "available": bool(session) and not session.get("reason"),
        "reason": session.get("reason") if session else "the child told nothing",
        "worst": _worst(result.cases),
        "cases": [{**case, "uses": list(uses[case["id"]])} for case in result.cases],
    }
