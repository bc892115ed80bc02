"""Put one check to one candidate: generate, call, judge, and look twice at what failed."""

from __future__ import annotations

import time
from dataclasses import replace

from pinproof_cell.candidates import Candidate
from pinproof_cell.candidates.distribution import failure
from pinproof_cell.judge.findings import Finding
from pinproof_cell.judge.forward import PASS, judge
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.checks import Check, Repeats
from pinproof_cell.suite.repeats import repeat
from pinproof_cell.suite.trial import (
    FLAKY,
    NOT_RUN,
    UNSUPPORTED,
    CallError,
    Result,
    Trial,
    lost,
)


def examine(
    candidate: Candidate, check: Check, *, seed: int, device: str, thresholds: Thresholds
) -> Result:
    """Put `check` to `candidate`.

    What fails is asked twice more on the same inputs: where the outcome differs, the candidate is
    FLAKY. What the harness itself fails at, such as memory for the oracle, is NOT-RUN.
    """
    missing = check.features - candidate.supports
    if missing:
        text = f"{candidate.name} does not admit {', '.join(sorted(missing))}"
        return Result(UNSUPPORTED, {}, (Finding("call", "refused", text),))
    started = time.monotonic()
    trial = Trial(candidate, seed, device, thresholds)
    found = _ask(trial, check)
    settled = found.infra or found.lost or found.status in (PASS, UNSUPPORTED)
    if not settled and not isinstance(check, Repeats):
        found = _settle(found, [_ask(trial, check), _ask(trial, check)])
    return replace(found, seconds=time.monotonic() - started)


def _ask(trial: Trial, check: Check) -> Result:
    try:
        return repeat(trial, check) if isinstance(check, Repeats) else _numbers(trial, check.case)
    except CallError as error:
        return error.result
    except Exception as error:
        text = f"harness: {failure(error)}"
        findings = (Finding("harness", "raises", text),)
        return Result(NOT_RUN, {}, findings, infra=True, lost=lost(trial.device))


def _numbers(trial: Trial, case: Case) -> Result:
    """Judge output and log-sum-exp of a case."""
    drawn = inputs.generate(case, trial.seed, trial.device)
    out, lse = trial.forward(drawn)
    found = judge(
        out,
        lse,
        oracle.attention(drawn),
        thresholds=trial.thresholds,
        dtype=drawn.q.dtype,
        empty_lse=trial.candidate.lse_on_empty_rows,
        baseline=oracle.low_precision(drawn),
    )
    return Result(found.status, found.stats, found.findings)


def _settle(first: Result, again: list[Result]) -> Result:
    outcomes = [first.status, *(result.status for result in again)]
    if len(set(outcomes)) == 1:
        return first
    text = f"three runs on the same inputs: {', '.join(outcomes)}"
    flaky = Finding("determinism", "outcomes", text)
    broken = any(result.lost for result in again)
    return replace(first, status=FLAKY, findings=(flaky, *first.findings), lost=broken)
