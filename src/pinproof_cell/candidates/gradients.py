"""Gradients of a candidate whose forward torch can differentiate, as training takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


class Differentiable:
    """A forward, and a backward by autograd, of an ``attend`` that torch can differentiate."""

    def attend(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Return output and log-sum-exp; raises NotImplementedError for what it does not take."""
        raise NotImplementedError

    def forward(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Attend."""
        return self.attend(call)

    def backward(
        self, dout: Tensor, call: Call, out: Tensor, lse: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the gradients of q, k and v, given that of the output.

        It attends once more, since autograd needs a forward of its own: for dropout torch's
        generator must stand where it stood before the first.
        """
        import torch

        with torch.enable_grad():
            q, k, v = (x.detach().requires_grad_() for x in (call.q, call.k, call.v))
            again, _ = self.attend(replace(call, q=q, k=k, v=v))
            return torch.autograd.grad(again, (q, k, v), dout)
