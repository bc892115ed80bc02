"""What the emulated kernel, or one of its mutants, computes in a case, and what is said of that."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pinproof_cell.candidates.provider import Provider
from pinproof_cell.judge import thresholds
from pinproof_cell.mutants import Attention, everything
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.suite.examine import examine
from pinproof_cell.suite.grid import PLAIN
from pinproof_cell.suite.guard import Guarded
from pinproof_cell.suite.trial import Result

# Small products gain nothing from threads, and lose much where the machine is busy.
torch.set_num_threads(1)

#: Every shape once, in fp16 and peaked or in bf16 and diffuse by turns, and the edges.
SOME = tuple(
    case
    for index, case in enumerate(PLAIN)
    if case.seqlen_k and (index >= 48 or index % 4 == 1 + index // 4 % 2)
)


@functools.cache
def kernel(mutant: str) -> Attention:
    """Return the mutant with this id, or the control "honest"."""
    return next(found for found in everything() if found.id == mutant).make()


def gradients(case: Case, mutant: str = "honest") -> tuple[Tensor, Tensor, Tensor]:
    """Return dQ, dK and dV of a case's inputs, rounded to its type."""
    call, dout = inputs.generate(case, 0, "cpu"), inputs.output_gradient(case, 0, "cpu")
    attention = kernel(mutant)
    answer = attention(call.q, call.k, call.v, **call.keywords())
    return attention.backward(dout, call.q, call.k, call.v, *answer, **call.keywords())


def examined(mutant: str, case: Case, seed: int = 0) -> Result:
    """Return what the judge says of the mutant's answer to a case."""
    candidate = Guarded(Provider(mutant, kernel(mutant), admits=FEATURES))
    return examine(candidate, case, seed=seed, device="cpu", thresholds=thresholds.load("sm_90"))
