"""What identities have in common: how a call is put, and how two answers are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.judge.agreement import Side, agree
from pinproof_cell.judge.findings import Finding
from pinproof_cell.judge.forward import DEGRADED, FAIL, PASS, Judgement, judge
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.expected import expect
from pinproof_cell.suite.guard import bits
from pinproof_cell.suite.trial import Trial


@dataclass(frozen=True)
class Bench:
    """A trial, and the case of an identity: where its functions put calls and compare answers."""

    trial: Trial
    case: Case

    def draw(self, **changed: Any) -> Call:
        """Draw the call of the case, or of the case with some fields changed."""
        case = replace(self.case, **changed) if changed else self.case
        return inputs.generate(case, self.trial.seed, self.trial.device)

    def ask(self, call: Call) -> Side:
        """Return the candidate's answer as of a batch, with its truth. Raises CallError."""
        out, lse = self.trial.forward(call)
        truth = oracle.attention(call)
        # A kernel may hand out the same memory again.
        shown = None if lse is None else lse.reshape(truth.lse.shape).clone()
        return Side(out.reshape(truth.out.shape).clone(), shown, truth)

    def agree(self, first: Side, second: Side, words: str) -> Judgement:
        """Compare two answers within the rounding of both."""
        return agree(first, second, thresholds=self.trial.thresholds, words=words)

    def same(self, first: Side, second: Side, words: str) -> Judgement:
        """Compare two answers that need not differ in a bit; what differs is judged by `agree`.

        A kernel may add in another order from call to call, as cuDNN's decode does, so bits alone
        would call it wrong now and then. ``differing`` counts the numbers; whether bits come again
        is what repeats ask.
        """
        differing = _differing(first.out, second.out)
        if first.lse is not None and second.lse is not None:
            differing += _differing(first.lse, second.lse)
        if not differing:
            return Judgement(PASS, {})
        return replace(self.agree(first, second, words), stats={"differing": float(differing)})

    def right(self, side: Side, words: str, *, alike: bool = False) -> Judgement:
        """Compare an answer with its truth, by the z-rule; findings begin with `words`.

        Where the weights of a row are all `alike`, a kernel that normalises P first rounds all of
        them the same way: then only the worst element and row count.
        """
        found = judge(
            side.out,
            side.lse,
            side.truth,
            thresholds=self.trial.thresholds,
            dtype=side.out.dtype,
            empty_lse=self.trial.candidate.lse_on_empty_rows,
            needs_lse=side.lse is not None,
        )
        if alike and found.status == DEGRADED:
            left = tuple(x for x in found.findings if x.statistic in ("max_z", "row_rms"))
            found = replace(found, status=DEGRADED if left else PASS, findings=left)
        return _said(found, words)

    def gradients(self, call: Call, words: str) -> Judgement:
        """Compare the candidate's gradients with their truth, by the z-rule. Raises CallError."""
        dout = inputs.output_gradient(self.case, self.trial.seed, self.trial.device)
        wanted = expect(call, dout).gradients
        assert wanted is not None  # noqa: S101  (a gradient of the output was given)
        out, lse = self.trial.forward(call)
        found = self.trial.backward(dout, call, out, lse)
        return _said(self.trial.judge_gradients(found, wanted), words)


def _said(found: Judgement, words: str) -> Judgement:
    return replace(
        found, findings=tuple(replace(x, text=f"{words}: {x.text}") for x in found.findings)
    )


def wrong(
    statistic: str, text: str, value: float | None = None, limit: float | None = None
) -> Judgement:
    """Return the judgement that an identity does not hold."""
    return Judgement(FAIL, {}, (Finding("identity", statistic, text, value, limit),))


def equal(first: Tensor, second: Tensor, words: str) -> Iterator[Judgement]:
    """Compare bit by bit, for where arithmetic leaves no choice; NaN equals itself."""
    count = _differing(first, second)
    if count:
        text = f"{words}: {count} of {first.numel()} numbers differ"
        yield wrong("bits", text, count, 0)


def _differing(first: Tensor, second: Tensor) -> int:
    """Return how many numbers differ; the two zeros are one number."""
    differ = bits(first) != bits(second)
    return int((differ & ~((first == 0) & (second == 0))).sum())


def rows(found: list[Side]) -> Side:
    """Return the answers to single sequences as those of one batch, row after row."""
    lse = None
    if all(side.lse is not None for side in found):
        lse = torch.cat([side.lse for side in found if side.lse is not None], 2)
    truth = oracle.joined([side.truth for side in found])
    return Side(torch.cat([side.out for side in found], 1), lse, truth)
