"""The emulated kernel as a provider: forward and backward of every call of the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.mutants.emulation import softmax
from pinproof_cell.mutants.emulation.gradient import Backward
from pinproof_cell.mutants.emulation.memory import Memory
from pinproof_cell.mutants.emulation.problem import Problem, as_asked
from pinproof_cell.mutants.emulation.softmax import Partial, State, Tile, identity, tiles


@dataclass(frozen=True)
class Kernel:
    """The steps of the kernel, each replaceable; called like any provider.

    ``ask`` and ``prepare`` come before all others, ``memory`` reads and writes, ``backward_steps``
    make the gradients. A call that names no number of splits gets ``splits``.
    """

    ask: Callable[[Call], Call] = as_asked
    prepare: Callable[[Problem], Problem] = identity
    scores: Callable[[Problem], Tensor] = softmax.scores
    seen: Callable[[Problem], Tensor] = softmax.seen
    values: Callable[[Problem, Tensor], Tensor] = softmax.values
    dropped: Callable[[Problem], Tensor | None] = softmax.dropped
    fold: Callable[[State, Tile], State] = softmax.fold
    close: Callable[[State], Partial] = softmax.close
    merge: Callable[[Sequence[Partial]], Partial] = softmax.merge
    sunk: Callable[[Tensor, Tensor, Problem], Partial] = softmax.sunk
    finish: Callable[[Tensor, Tensor, Problem], Partial] = softmax.finish
    schedule: Callable[[list[range], int], list[list[range]]] = softmax.in_order
    cast: Callable[[Tensor, torch.dtype], Tensor] = Tensor.to
    memory: Memory = field(default_factory=Memory)
    backward_steps: Backward = field(default_factory=Backward)
    block: int = 64
    splits: int = 1

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **keywords: Any) -> tuple[Tensor, Tensor]:
        """Attend; the keywords are those of `pinproof_cell.call.Call`."""
        call = self.ask(Call(q=q, k=k, v=v, **keywords))
        parts = []
        for problem in self.memory.read(call):
            out, lse = self._attend(self.prepare(problem))
            parts.append((self.cast(out.transpose(1, 2).contiguous(), q.dtype), lse.contiguous()))
        return self.memory.write(call, parts)

    def backward(
        self,
        dout: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        **keywords: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Differentiate; dropout draws its mask as the forward does, from the same seed."""
        steps = self.backward_steps
        call, dout = steps.ask(Call(q=q, k=k, v=v, **keywords)), steps.read(dout)
        parts = []
        for problem in self.memory.read(call):
            index = problem.sequence
            ours, theirs = (
                self.memory.part(call, x, index).float().transpose(1, 2) for x in (out, dout)
            )
            found = steps(problem, ours, theirs, self.memory.sums_of(call, lse, index))
            parts.append(tuple(self.cast(x.transpose(1, 2).contiguous(), q.dtype) for x in found))
        dq, dk, dv = self.memory.spread(call, parts)
        return dq, dk, dv

    def _attend(self, problem: Problem) -> Partial:
        logits, visible = self.scores(problem), self.seen(problem)
        logits = logits.masked_fill(~visible, -torch.inf)
        read, dropped = self.values(problem, visible), self.dropped(problem)
        cut = tiles(logits.shape[-1], self.block)
        partials = []
        for share in self.schedule(cut, problem.splits or self.splits):
            state = _start(problem, read.shape[-1])
            for number, keys in enumerate(share):
                rows = slice(keys.start, keys.stop)
                tile = Tile(
                    scores=logits[..., rows],
                    values=read[:, :, rows],
                    weights=None if dropped is None else dropped[..., rows],
                    dtype=problem.dtype,
                    number=number,
                    first=keys.start,
                )
                state = self.fold(state, tile)
            partials.append(self.close(state))
        out, lse = self.merge(partials) if len(partials) > 1 else partials[0]
        return self.finish(*self.sunk(out, lse, problem), problem)


def _start(problem: Problem, head_dim: int) -> State:
    batch, heads, queries, _ = problem.q.shape
    shape = (batch, heads, queries)
    return State(torch.zeros(*shape, head_dim), torch.full(shape, -torch.inf), torch.zeros(shape))


HONEST = Kernel()


def changed(kernel: Kernel = HONEST, /, **steps: Any) -> Kernel:
    """Return `kernel` with some steps replaced."""
    return replace(kernel, **steps)
