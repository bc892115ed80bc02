"""Every case, put to one candidate and judged by the z-rule."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pinproof_cell.suite.cases import Case, suite
from pinproof_cell.suite.supervise import Journal


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take the cases that were asked for and that no child before this one has begun."""
    chosen = metafunc.config.getoption("--cases")
    wanted = None if chosen is None else json.loads(Path(chosen).read_text(encoding="utf-8"))
    path = metafunc.config.getoption("--journal")
    begun = set(Journal(Path(path)).started()) if path else set()
    cases = [c for c in suite() if (wanted is None or c.id in wanted) and c.id not in begun]
    metafunc.parametrize("case", cases, ids=[case.id for case in cases])


def test_output_and_lse_are_those_of_a_correct_kernel(
    case: Case,
    candidate: Any,
    journal: Journal | None,
    request_document: dict[str, Any],
    pytestconfig: pytest.Config,
) -> None:
    """Output and log-sum-exp lie where rounding alone may put them."""
    from pinproof_cell.candidates.distribution import failure
    from pinproof_cell.judge import thresholds
    from pinproof_cell.suite.examine import CRASH, ERROR, UNSUPPORTED, DeviceLostError, examine

    if journal:
        journal.add("start", case=case.id)
    try:
        result = examine(
            candidate,
            case,
            seed=request_document["seed"],
            device=pytestconfig.getoption("--device"),
            thresholds=thresholds.load(request_document["target"]),
        )
    except DeviceLostError as lost:
        if not journal:
            raise
        _record(journal, case, CRASH, reasons=[str(lost)])
        # The context is broken for every later case; the supervisor starts a fresh process.
        os._exit(70)
    except Exception as error:
        # Ours, not the candidate's, such as memory that the oracle did not get: never a pass.
        if journal:
            _record(journal, case, ERROR, reasons=[f"harness: {failure(error)}"])
        raise
    if journal:
        _record(journal, case, result.status, result.stats, result.reasons, result.seconds)
    if result.status == UNSUPPORTED:
        pytest.skip(f"UNSUPPORTED: {'; '.join(result.reasons)}")
    assert result.status == "PASS", "; ".join(result.reasons)


def _record(
    journal: Journal,
    case: Case,
    status: str,
    stats: Any = None,
    reasons: Any = (),
    seconds: float = 0.0,
) -> None:
    journal.add(
        "end",
        case=case.id,
        status=status,
        stats=stats or {},
        reasons=list(reasons),
        signal=None,
        seconds=round(seconds, 4),
    )
