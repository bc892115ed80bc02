"""Put one check to one candidate: generate, call, judge, and look twice at what failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from pinproof_cell.candidates import Candidate
from pinproof_cell.candidates.distribution import failure
from pinproof_cell.judge.findings import Finding
from pinproof_cell.judge.forward import DEGRADED, FAIL, PASS, Judgement
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.suite import dropout, expected
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.checks import Check, Repeats
from pinproof_cell.suite.guard import Guarded
from pinproof_cell.suite.identities import Identity
from pinproof_cell.suite.identities.compare import Bench
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

_WORSE = (PASS, DEGRADED, FAIL)


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
    guarded = candidate if isinstance(candidate, Guarded) else Guarded(candidate)
    trial = Trial(guarded, seed, device, thresholds)
    found = ask(trial, check)
    settled = found.infra or found.lost or found.status in (PASS, UNSUPPORTED)
    if not settled and not isinstance(check, Repeats):
        found = _settle(found, [ask(trial, check), ask(trial, check)])
    return replace(found, seconds=time.monotonic() - started)


def ask(trial: Trial, check: Check) -> Result:
    """Put `check` to the candidate of a trial once."""
    try:
        if isinstance(check, Repeats):
            return repeat(trial, check)
        if isinstance(check, Identity):
            return _together(list(check.judge(Bench(trial, check.case))))
        return _numbers(trial, check.case)
    except CallError as error:
        return error.result
    except Exception as error:
        text = f"harness: {failure(error)}"
        findings = (Finding("harness", "raises", text),)
        return Result(NOT_RUN, {}, findings, infra=True, lost=lost(trial.device))


def _numbers(trial: Trial, case: Case) -> Result:
    """Judge output, log-sum-exp and gradients of a case."""
    findings: list[Finding] = []
    if case.dropout:
        call, dout = expected.drawn(case, trial.seed, trial.device)
        keep = dropout.keep(trial, call)
        findings += dropout.implausible(trial, call, keep)
        wanted = expected.expect(call, dout, keep)
    else:
        wanted = expected.of(case, trial.seed, trial.device)
    out, lse = trial.forward(wanted.call)
    found = [Judgement(FAIL if findings else PASS, {}, tuple(findings))]
    found.append(trial.judge(out, lse, wanted))
    if wanted.gradients:
        gradients = trial.backward(wanted.gradients.dout, wanted.call, out, lse)
        found.append(trial.judge_gradients(gradients, wanted.gradients))
    return _together(found)


def _together(found: Sequence[Judgement]) -> Result:
    """Return the gravest of some judgements of one check, with the statistics of all."""
    status = max((judgement.status for judgement in found), key=_WORSE.index, default=PASS)
    return Result(
        status,
        {name: value for judgement in found for name, value in judgement.stats.items()},
        tuple(x for judgement in found if judgement.status == status for x in judgement.findings),
    )


def _settle(first: Result, again: list[Result]) -> Result:
    outcomes = [first.status, *(result.status for result in again)]
    if len(set(outcomes)) == 1:
        return first
    text = f"three runs on the same inputs: {', '.join(outcomes)}"
    flaky = Finding("determinism", "outcomes", text)
    broken = any(result.lost for result in again)
    return replace(first, status=FLAKY, findings=(flaky, *first.findings), lost=broken)
