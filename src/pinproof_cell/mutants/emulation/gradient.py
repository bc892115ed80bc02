"""The steps of the backward kernel: P again from the log-sum-exp, then dV, dK and dQ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.mutants.emulation import softmax
from pinproof_cell.mutants.emulation.problem import Problem, as_asked
from pinproof_cell.mutants.emulation.softmax import identity, products, rounded

Gradients = tuple[Tensor, Tensor, Tensor]
"""dQ (batch, heads, seqlen_q, headdim), dK and dV (batch, heads_k, seqlen_k, ...), float32."""


def probabilities(logits: Tensor, lse: Tensor) -> Tensor:
    """Return P from logits that are -inf where hidden; a row without keys has none."""
    return torch.exp(logits - lse.masked_fill(torch.isinf(lse), 0.0)[..., None])


def delta(out: Tensor, dout: Tensor) -> Tensor:
    """Return the sum of O dO of each row, (batch, heads, seqlen_q, 1)."""
    return (out * dout).sum(-1, keepdim=True)


def of_scores(p: Tensor, off: Tensor, problem: Problem) -> Tensor:
    """Return the gradient of the scores from P and dP - delta."""
    return p * off


def bend(problem: Problem) -> Tensor | None:
    """Return the derivative of the softcap at each logit: 1 - tanh^2."""
    if not problem.softcap:
        return None
    return 1 - torch.tanh(products(problem) * problem.scale / problem.softcap).square()


def of_queries(ds: Tensor, problem: Problem) -> Tensor:
    """Return dQ from the gradient of the scaled products."""
    return ds @ problem.k[:, problem.k_head] * problem.scale


def of_keys(ds: Tensor, problem: Problem) -> Tensor:
    """Return each query head's share of dK."""
    return ds.transpose(2, 3) @ problem.q * problem.scale


def of_values(p: Tensor, dout: Tensor) -> Tensor:
    """Return each query head's share of dV."""
    return p.transpose(2, 3) @ dout


def grouped(shares: Tensor, heads: Tensor, count: int) -> Tensor:
    """Sum the shares of the query heads that read the same of `count` key heads."""
    whole = shares.new_zeros(shares.shape[0], count, *shares.shape[2:])
    return whole.index_add_(1, heads, shares)


def stored(lse: Tensor, problem: Problem) -> Tensor:
    """Return the log-sum-exp that the forward left, (batch, heads, seqlen_q)."""
    return lse


def as_found(gradients: Gradients, problem: Problem, lse: Tensor) -> Gradients:
    """Leave the gradients as they are."""
    return gradients


def as_given(dout: Tensor) -> Tensor:
    """Read the gradient of the output where it lies."""
    return dout


@dataclass(frozen=True)
class Backward:
    """The steps, each replaceable; what they share with the forward they take from it."""

    ask: Callable[[Call], Call] = as_asked
    read: Callable[[Tensor], Tensor] = as_given
    prepare: Callable[[Problem], Problem] = identity
    scores: Callable[[Problem], Tensor] = softmax.scores
    seen: Callable[[Problem], Tensor] = softmax.seen
    stored: Callable[[Tensor, Problem], Tensor] = stored
    probabilities: Callable[[Tensor, Tensor], Tensor] = probabilities
    delta: Callable[[Tensor, Tensor], Tensor] = delta
    of_scores: Callable[[Tensor, Tensor, Problem], Tensor] = of_scores
    bend: Callable[[Problem], Tensor | None] = bend
    dropped: Callable[[Problem], Tensor | None] = softmax.dropped
    quantize: Callable[[Tensor, torch.dtype], Tensor] = rounded
    of_queries: Callable[[Tensor, Problem], Tensor] = of_queries
    of_keys: Callable[[Tensor, Problem], Tensor] = of_keys
    of_values: Callable[[Tensor, Tensor], Tensor] = of_values
    grouped: Callable[[Tensor, Tensor, int], Tensor] = grouped
    finish: Callable[[Gradients, Problem, Tensor], Gradients] = as_found

    def __call__(self, problem: Problem, out: Tensor, dout: Tensor, lse: Tensor) -> Gradients:
        """Differentiate; `out` and `dout` are (batch, heads, seqlen_q, headdim), float32."""
        problem = self.prepare(problem)
        logits = self.scores(problem).masked_fill(~self.seen(problem), -torch.inf)
        p = self.probabilities(logits, self.stored(lse, problem))
        dp = dout @ problem.v[:, problem.v_head].transpose(2, 3)
        dropped = self.dropped(problem)
        if dropped is not None:
            dp = dp * dropped
        ds = self.of_scores(p, dp - self.delta(out, dout), problem)
        bend = self.bend(problem)
        if bend is not None:
            ds = ds * bend
        if dropped is not None:
            p = p * dropped
        ds, p = self.quantize(ds, problem.dtype), self.quantize(p, problem.dtype)
        count = problem.k.shape[1]
        gradients = (
            self.of_queries(ds, problem),
            self.grouped(self.of_keys(ds, problem), problem.k_head, count),
            self.grouped(self.of_values(p, dout), problem.v_head, count),
        )
        return self.finish(gradients, problem, lse)
