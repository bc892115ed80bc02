"""Whether a kernel says the same each time: many calls on the same inputs, compared bit by bit."""

from __future__ import annotations

import time

from torch import Tensor

from pinproof_cell.judge.findings import Finding
from pinproof_cell.judge.forward import DEGRADED, PASS
from pinproof_cell.suite import expected
from pinproof_cell.suite.checks import Repeats
from pinproof_cell.suite.expected import Expected
from pinproof_cell.suite.guard import bits
from pinproof_cell.suite.trial import FLAKY, Result, Trial

#: No longer than this, in seconds: a slow kernel is called less often.
SECONDS = 20.0


def repeat(trial: Trial, check: Repeats, seconds: float = SECONDS) -> Result:
    """Call a candidate as often as `check` says, at most for `seconds`.

    Where a call differs in a bit from the first, the result is FLAKY if its numbers are not those
    of a correct kernel, and else DEGRADED if `check` is ``exact``; ``differing`` counts such calls.
    dQ may differ, for who adds it up atomically says so by not being "deterministic". Raises
    CallError.
    """
    started = time.monotonic()
    wanted = expected.of(check.case, trial.seed, trial.device)
    first = {name: x.clone() for name, x in _answer(trial, wanted).items()}
    promised = set(first) - (set() if "deterministic" in trial.candidate.supports else {"dq"})
    done, differing = 1, 0
    while done < check.count and time.monotonic() - started < seconds:
        again = _answer(trial, wanted)
        done += 1
        elements = {name: int((bits(again[name]) != bits(first[name])).sum()) for name in promised}
        if not any(elements.values()):
            continue
        differing += 1
        right = _right(trial, wanted, first) and _right(trial, wanted, again)
        if check.exact or not right:
            finding = _finding(done, elements)
            return Result(DEGRADED if right else FLAKY, {"repeats": float(done)}, (finding,))
    return Result(PASS, {"repeats": float(done), "differing": float(differing)})


def _finding(number: int, elements: dict[str, int]) -> Finding:
    name, count = next(item for item in sorted(elements.items()) if item[1])
    words = f"{name} of call {number} on the same inputs differs from that of the first"
    return Finding("determinism", "repeats", f"{words} in {count} numbers", count, 0)


def _answer(trial: Trial, wanted: Expected) -> dict[str, Tensor]:
    out, lse = trial.forward(wanted.call)
    found = {"out": out} if lse is None else {"out": out, "lse": lse}
    if wanted.gradients:
        gradients = trial.backward(wanted.gradients.dout, wanted.call, out, lse)
        found |= zip(("dq", "dk", "dv"), gradients, strict=True)
    return found


def _right(trial: Trial, wanted: Expected, answer: dict[str, Tensor]) -> bool:
    found = [trial.judge(answer["out"], answer.get("lse"), wanted)]
    if wanted.gradients:
        gradients = [answer[name] for name in ("dq", "dk", "dv")]
        found.append(trial.judge_gradients(gradients, wanted.gradients))
    return all(judgement.status == PASS for judgement in found)
