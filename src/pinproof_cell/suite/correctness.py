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
from pinproof_cell.suite import checks as suites
from pinproof_cell.suite.harness import vote, worst
from pinproof_cell.suite.supervise import Run, Suite, supervise


def run(
    document: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    checks: Sequence[str] | None = None,
    check_limit: float | None = None,
) -> dict[str, Any]:
    """Run the suite of a request; returns the correctness document.

    `names` and `checks` narrow it to some candidates (also ``FILE.py:NAME``) and ids. Raises
    BadRequestError for a suite that is not there and a check that does not exist.
    """
    request = Request.parse(dict(document))
    for check in checks or ():
        try:
            suites.by_id(check)
        except KeyError:
            raise BadRequestError(f"no check {check!r}") from None
    device = "cpu" if request.target == "cpu" else "cuda"
    suite = Suite(
        directory=_directory(request),
        checks=[check.id for check in suites.suite("full", device)] if checks is None else checks,
        target=request.target,
        seed=request.seed,
        check_limit=check_limit,
        say=lambda line: print(line, flush=True),
    )
    if names is None:
        names = [found.name for found in candidates.find(request.axes, suite.device)]
    voted, seen = vote(suite)
    runs = [(name, supervise(name, suite)) for name in names]
    return {
        "schema": SCHEMA,
        "stage": "correctness",
        "cell": request.cell,
        "device": seen,
        "seed": request.seed,
        "thresholds": {"target": request.target, "source": thresholds.load(request.target).source},
        "harness": voted,
        "candidates": [_candidate(name, result) for name, result in runs],
    }


def _directory(request: Request) -> Path:
    directory = Path(request.suite_dir)
    if not (directory / "test_attention.py").is_file():
        raise BadRequestError(f"suite_dir {request.suite_dir!r} holds no test_attention.py")
    return directory.resolve()


def _candidate(name: str, result: Run) -> dict[str, Any]:
    session = result.session
    return {
        "name": name,
        "version": session.get("version"),
        "available": bool(session) and not session.get("reason"),
        "reason": session.get("reason") if session else "the child told nothing",
        "worst": worst(result.checks),
        "cases": [check | suites.facts(suites.by_id(check["id"])) for check in result.checks],
    }
