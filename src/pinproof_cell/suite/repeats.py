"""Whether a kernel says the same twice: many calls on the same inputs, compared bit by bit."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from pinproof_cell.candidates import Candidate
from pinproof_cell.judge.forward import DEGRADED, PASS, judge
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import examine, inputs
from pinproof_cell.suite.cases import Case

#: The case of the check: more than one tile, small enough to be called often.
CASE = Case(128, 128)


def repeat(
    candidate: Candidate,
    *,
    count: int,
    seed: int,
    device: str,
    thresholds: Thresholds,
    seconds: float = 20.0,
) -> examine.Result:
    """Call `candidate` on `CASE` up to `count` times, at most for `seconds`.

    Where a call differs in a bit from the first, the result is FLAKY if its numbers are not those
    of a correct kernel, and DEGRADED if they are. Raises what the candidate raises.
    """
    started = time.monotonic()
    case = CASE if "bf16" in candidate.supports else replace(CASE, dtype="fp16")
    drawn = inputs.generate(case, seed, device)
    first, first_lse = examine.call(candidate, drawn)
    first, first_lse = first.clone(), first_lse.clone()
    done, status = 1, PASS
    reasons: tuple[str, ...] = ()
    while done < count and time.monotonic() - started < seconds:
        out, lse = examine.call(candidate, drawn)
        done += 1
        if torch.equal(_bits(out), _bits(first)) and torch.equal(_bits(lse), _bits(first_lse)):
            continue
        truth = oracle.attention(drawn)
        verdicts = [
            judge(*answer, truth, thresholds=thresholds, dtype=drawn.q.dtype)
            for answer in ((first, first_lse), (out, lse))
        ]
        status = DEGRADED if all(v.status == PASS for v in verdicts) else examine.FLAKY
        elements = int((_bits(out) != _bits(first)).sum() + (_bits(lse) != _bits(first_lse)).sum())
        reasons = (f"call {done} on the same inputs differs from the first in {elements} numbers",)
        break
    spent = time.monotonic() - started
    return examine.Result(status, {"repeats": float(done)}, reasons, spent)


def _bits(x: torch.Tensor) -> torch.Tensor:
    """Return the bits of `x`, so that NaN equals itself."""
    return x.contiguous().view(torch.int16 if x.element_size() == 2 else torch.int32)
