"""Put one case to one candidate: generate, call, judge, and look twice at what failed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.candidates import Candidate
from pinproof_cell.candidates.distribution import failure
from pinproof_cell.judge.forward import PASS, Judgement, judge
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case

FLAKY, CRASH, ERROR, UNSUPPORTED = "FLAKY", "CRASH", "ERROR", "UNSUPPORTED"


class DeviceLostError(Exception):
    """The device answers no more in this process, as after an illegal memory access."""


@dataclass(frozen=True)
class Result:
    """What one case said of one candidate; ``seconds`` include oracle and repeats."""

    status: str
    stats: dict[str, float]
    reasons: tuple[str, ...]
    seconds: float


def examine(
    candidate: Candidate, case: Case, *, seed: int, device: str, thresholds: Thresholds
) -> Result:
    """Judge `candidate` on `case`.

    A failing case is judged twice more on the same inputs: where the outcome differs, the
    candidate is FLAKY. Raises DeviceLostError where the device is unusable after the call.
    """
    started = time.monotonic()
    missing = case.features - candidate.supports
    if missing:
        reason = f"{candidate.name} does not admit {', '.join(sorted(missing))}"
        return Result(UNSUPPORTED, {}, (reason,), 0.0)
    drawn = inputs.generate(case, seed, device)
    truth = oracle.attention(drawn)
    baseline = oracle.low_precision(drawn)

    def once() -> Judgement:
        try:
            out, lse = call(candidate, drawn)
        except Exception as error:
            _check_device(device, error)
            # A build may leave features out, and says so when it is asked for one.
            refused = isinstance(error, NotImplementedError) or "does not support" in str(error)
            return Judgement(UNSUPPORTED if refused else ERROR, {}, (failure(error),))
        return judge(
            out,
            lse,
            truth,
            thresholds=thresholds,
            dtype=drawn.q.dtype,
            empty_lse=candidate.lse_on_empty_rows,
            baseline=baseline,
        )

    found = once()
    if found.status not in (PASS, UNSUPPORTED):
        found = _settle(found, [once(), once()])
    return Result(found.status, found.stats, found.reasons, time.monotonic() - started)


def call(candidate: Candidate, drawn: Call) -> tuple[Tensor, Tensor]:
    """Call the candidate in memory full of NaN, and wait for it: errors belong to this case."""
    # Rows that a kernel forgets to write look right in fresh memory: hand back poisoned memory.
    poison = torch.full((2, *drawn.q.shape), torch.nan, dtype=drawn.q.dtype, device=drawn.q.device)
    del poison
    with torch.no_grad():
        answer = candidate.forward(drawn)
    if drawn.q.is_cuda:
        torch.cuda.synchronize()
    return answer


def _settle(first: Judgement, repeats: list[Judgement]) -> Judgement:
    outcomes = [first.status] + [repeat.status for repeat in repeats]
    if len(set(outcomes)) == 1:
        return first
    told = f"three runs on the same inputs: {', '.join(outcomes)}"
    return replace(first, status=FLAKY, reasons=(told, *first.reasons))


def _check_device(device: str, error: Exception) -> None:
    """Raise DeviceLostError where the CUDA context is broken for good."""
    if device == "cpu":
        return
    try:
        torch.zeros(1, device=device).cpu()
        torch.cuda.synchronize()
    except Exception:
        raise DeviceLostError(failure(error)) from error
