"""How a candidate is called so that its errors show, and what a check came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.candidates.distribution import failure
from pinproof_cell.judge import backward
from pinproof_cell.judge.findings import Finding
from pinproof_cell.judge.forward import FAIL, Judgement, judge
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.suite import poison
from pinproof_cell.suite.expected import Expected, Gradients
from pinproof_cell.suite.guard import AnswerError, Guarded
from pinproof_cell.world import memory

FLAKY, CRASH, ERROR, UNSUPPORTED, NOT_RUN = "FLAKY", "CRASH", "ERROR", "UNSUPPORTED", "NOT-RUN"


@dataclass(frozen=True)
class Result:
    """What one check said of one candidate; ``seconds`` include oracle and repeats.

    ``infra`` says that the machine or the harness failed and the candidate said nothing; ``lost``
    that the device answers no more in this process, as after an illegal memory access.
    """

    status: str
    stats: dict[str, float]
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    infra: bool = False
    lost: bool = False

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(finding.text for finding in self.findings)


class CallError(Exception):
    """A call that gave no answer; it carries what that makes of the check."""

    def __init__(self, result: Result) -> None:
        super().__init__("; ".join(result.reasons))
        self.result = result


@dataclass(frozen=True)
class Trial:
    """One candidate on one device, under one seed and the limits of one target.

    The methods raise CallError where the candidate gives no answer.
    """

    candidate: Guarded
    seed: int
    device: str
    thresholds: Thresholds

    def forward(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Call the candidate in memory full of NaN, and wait for it: errors belong to this call."""
        self._poison(call.q[..., 0].numel() * call.v.shape[-1] * call.v.element_size())
        with self._answering(), torch.no_grad():
            return self.candidate.forward(call)

    def backward(
        self, dout: Tensor, call: Call, out: Tensor, lse: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the candidate's gradients, given `out` and `lse` as its forward returned them."""
        for x in (call.q, call.k, call.v):
            self._poison(x.numel() * x.element_size())
        with self._answering():
            return self.candidate.backward(dout, call, out, lse)

    def judge(self, out: Tensor, lse: Tensor | None, wanted: Expected) -> Judgement:
        """Judge output and log-sum-exp; a candidate without "lse" may return None for it."""
        # The oracle takes a ragged call as a batch of one.
        return judge(
            out.reshape(wanted.truth.out.shape),
            None if lse is None else lse.reshape(wanted.truth.lse.shape),
            wanted.truth,
            thresholds=self.thresholds,
            dtype=wanted.call.q.dtype,
            empty_lse=self.candidate.lse_on_empty_rows,
            baseline=wanted.baseline,
            needs_lse="lse" in self.candidate.supports,
            dropout=wanted.call.dropout,
        )

    def judge_gradients(self, found: Sequence[Tensor], wanted: Gradients) -> Judgement:
        """Judge dQ, dK and dV."""
        dq, dk, dv = (
            x.reshape(getattr(wanted.truth, name).value.shape)
            for name, x in zip(("dq", "dk", "dv"), found, strict=True)
        )
        return backward.judge(
            dq,
            dk,
            dv,
            wanted.truth,
            thresholds=self.thresholds,
            dtype=wanted.dout.dtype,
            baselines=wanted.baselines,
        )

    def _poison(self, nbytes: int) -> None:
        """Fill the memory that an answer of `nbytes` bytes will likely get, and free it."""
        held = [poison.block(nbytes, self.device) for _ in range(2)]
        held.clear()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        # Dropout draws from this generator: equal shapes get the equal mask.
        torch.manual_seed(self.seed)
        try:
            yield
            if self.device == "cuda":
                torch.cuda.synchronize()
        except (Exception, SystemExit) as error:
            raise CallError(failed(error, self.device)) from error


def failed(error: BaseException, device: str) -> Result:
    """Return what a check came to whose candidate raised `error`."""
    text = failure(error)
    if isinstance(error, AnswerError):
        return Result(FAIL, {}, (error.finding,))
    if memory.is_full(error):
        return Result(NOT_RUN, {}, (Finding("process", "no_memory", text),), infra=True)
    if lost(device):
        return Result(CRASH, {}, (Finding("process", "device_lost", text),), lost=True)
    # A build may leave features out, and says so when it is asked for one.
    if isinstance(error, NotImplementedError) or "does not support" in str(error):
        return Result(UNSUPPORTED, {}, (Finding("call", "refused", text),))
    return Result(ERROR, {}, (Finding("call", "raises", text),))


def lost(device: str) -> bool:
    """Return whether the CUDA context of this process is broken for good."""
    if device == "cpu":
        return False
    try:
        torch.zeros(1, device=device).cpu()
        torch.cuda.synchronize()
    except Exception:
        return True
    return False
