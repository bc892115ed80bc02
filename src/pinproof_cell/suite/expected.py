"""The call of a case, and all that its judgement needs: computed once, for whoever is judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle import backward, forward, lowprecision
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case


@dataclass(frozen=True)
class Gradients:
    """The gradient of the output, those of q, k and v, and what low-precision PyTorch gives."""

    dout: Tensor
    truth: backward.Truth
    baselines: tuple[Tensor, ...]


@dataclass(frozen=True)
class Expected:
    """A call, its truth, and low-precision PyTorch's output; ``gradients`` where it has any."""

    call: Call
    truth: forward.Truth
    baseline: Tensor
    gradients: Gradients | None = None


def expect(call: Call, dout: Tensor | None = None, keep: Tensor | None = None) -> Expected:
    """Return what a correct kernel makes of a call; `keep` is what its dropout leaves in."""
    found = None
    if dout is not None:
        found = Gradients(
            dout,
            backward.backward(dout, call, keep),
            lowprecision.gradients(dout, call, keep),
        )
    baseline = lowprecision.attention(call, keep)
    return Expected(call, forward.attention(call, keep), baseline, found)


@lru_cache(maxsize=2)
def drawn(case: Case, seed: int, device: str) -> tuple[Call, Tensor | None]:
    """Return the call of a case, and the gradient of its output where it asks for gradients."""
    dout = inputs.output_gradient(case, seed, device) if case.backward else None
    return inputs.generate(case, seed, device), dout


@lru_cache(maxsize=2)
def of(case: Case, seed: int, device: str) -> Expected:
    """Return what a correct kernel makes of a case without dropout."""
    return expect(*drawn(case, seed, device))
