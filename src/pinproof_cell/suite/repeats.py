"""Whether a kernel says the same each time: many calls on the same inputs, compared bit by bit."""

from __future__ import annotations

import time

import torch

from pinproof_cell.judge.findings import Finding
from pinproof_cell.judge.forward import DEGRADED, PASS, judge
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.checks import Repeats
from pinproof_cell.suite.trial import FLAKY, Result, Trial

#: No longer than this, in seconds: a slow kernel is called less often.
SECONDS = 20.0


def repeat(trial: Trial, check: Repeats, seconds: float = SECONDS) -> Result:
    """Call a candidate as often as `check` says, at most for `seconds`.

    Where a call differs in a bit from the first, the result is FLAKY if its numbers are not those
    of a correct kernel, and DEGRADED if they are. Raises CallError.
    """
    started = time.monotonic()
    drawn = inputs.generate(check.case, trial.seed, trial.device)
    first, first_lse = (x.clone() for x in trial.forward(drawn))
    done = 1
    while done < check.count and time.monotonic() - started < seconds:
        out, lse = trial.forward(drawn)
        done += 1
        elements = int((_bits(out) != _bits(first)).sum() + (_bits(lse) != _bits(first_lse)).sum())
        if not elements:
            continue
        truth = oracle.attention(drawn)
        verdicts = [
            judge(*answer, truth, thresholds=trial.thresholds, dtype=drawn.q.dtype)
            for answer in ((first, first_lse), (out, lse))
        ]
        status = DEGRADED if all(v.status == PASS for v in verdicts) else FLAKY
        text = f"call {done} on the same inputs differs from the first in {elements} numbers"
        finding = Finding("determinism", "repeats", text, elements, 0)
        return Result(status, {"repeats": float(done)}, (finding,))
    return Result(PASS, {"repeats": float(done)})


def _bits(x: torch.Tensor) -> torch.Tensor:
    """Return the bits of `x`, so that NaN equals itself."""
    return x.contiguous().view(torch.int16 if x.element_size() == 2 else torch.int32)
