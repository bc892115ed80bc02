"""The correctness stage: the harness judged by its own rule, then every candidate of the cell.

Imports no torch: children do, so that nothing that they die of can end this process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pinproof_cell import candidates
from pinproof_cell.judge import defects, thresholds
from pinproof_cell.judge.conditions import Outcome
from pinproof_cell.request import SCHEMA, BadRequestError, Request
from pinproof_cell.suite import absent
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
        known = candidates.find(request.axes, suite.device)
        names = request.candidates or [found.name for found in known]
    voted, seen = vote(suite)
    origins = {each.name: each.origin for each in candidates.known()}
    found = [
        entry(
            name,
            supervise(name, suite),
            request.target,
            without=request.without.get(origins.get(name, ""), ()),
        )
        for name in names
    ]
    return {
        "schema": SCHEMA,
        "stage": "correctness",
        "cell": request.cell,
        "device": seen,
        "seed": request.seed,
        "thresholds": {"target": request.target, "source": thresholds.load(request.target).source},
        "harness": voted,
        "candidates": found,
        "incomplete": list(incomplete(voted, found, request.uses)),
    }


def _directory(request: Request) -> Path:
    directory = Path(request.suite_dir)
    if not (directory / "test_attention.py").is_file():
        raise BadRequestError(f"suite_dir {request.suite_dir!r} holds no test_attention.py")
    return directory.resolve()


def entry(name: str, result: Run, target: str, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the document says of one candidate; known defects are named in its checks.

    `without` is what its build left out.
    """
    session = result.session
    supports = session.get("supports") or []
    cases = [
        absent.marked(found, check, without, supports) | suites.facts(check)
        for found in result.checks
        for check in (suites.by_id(found["id"]),)
    ]
    subject = defects.Subject(
        candidate=name,
        version=session.get("version"),
        target=target,
        lse_on_empty_rows=session.get("lse_on_empty_rows", -math.inf),
    )
    for case in cases:
        case["defect"] = defects.name_of(subject, Outcome.read(case))
    return {
        "name": name,
        "version": session.get("version"),
        "supports": supports,
        "without": list(without),
        "extensions": session.get("extensions") or [],
        "available": bool(session) and not session.get("reason"),
        "reason": session.get("reason") if session else "the child told nothing",
        "worst": worst(result.checks),
        "cases": cases,
        "defects": defects.account(subject, cases),
    }


def incomplete(
    voted: Mapping[str, Any], found: Sequence[Mapping[str, Any]], uses: Sequence[str]
) -> Iterator[str]:
    """Yield what the machine kept from being seen of the asked uses: such a run is made again."""
    if voted["status"] == "NOT-RUN":
        yield f"harness: {voted['failures'][0]['reason']}"
    for candidate in found:
        for case in candidate["cases"]:
            if case["infra"] and (not uses or set(uses).intersection(case["uses"])):
                yield f"{candidate['name']} {case['id']}: {'; '.join(case['reasons'])}"
                break
