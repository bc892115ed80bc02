"""Our own Triton kernel as a candidate: so the harness is judged by the rule that it applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinproof_cell.candidates import LSE_MINUS_INF
from pinproof_cell.candidates.distribution import failure, version
from pinproof_cell.suite.cases import FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True)
class TritonReference:
    """One mode of the reference, "ref" or "fast"."""

    mode: str
    origin: str = "triton"
    supports: frozenset[str] = FEATURES
    lse_on_empty_rows: float = LSE_MINUS_INF

    @property
    def name(self) -> str:
        """The name in results: triton-ref or triton-fast."""
        return f"triton-{self.mode}"

    @property
    def version(self) -> str | None:
        """Triton's version: the kernel is ours, its compiler is the cell's."""
        return version("triton")

    def available(self) -> str | None:
        """Return why Triton cannot be imported or has no device, or None."""
        try:
            import torch

            from pinproof_cell.kernels.launch import INTERPRETED

            if not INTERPRETED and not torch.cuda.is_available():
                return "torch sees no CUDA device"
        except Exception as error:
            return failure(error)
        return None

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend in this mode."""
        from pinproof_cell.kernels import reference

        arguments = call.keywords() | {"keep": drawn(call), "mode": self.mode}
        return reference.attention(call.q, call.k, call.v, **arguments)

    def backward(
        self, dout: Tensor, call: Call, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients in this mode.

        Dropout draws its mask again: the generator must stand where it stood before the forward.
        """
        from pinproof_cell.kernels import reference

        arguments = call.keywords() | {"keep": drawn(call), "mode": self.mode}
        return reference.backward(dout, call.q, call.k, call.v, out, lse, **arguments)


def drawn(call: Call) -> Tensor | None:
    """Draw which keys dropout leaves in, as `reference.attention` takes them."""
    import torch

    if not call.dropout:
        return None
    batch, rows, keys = call.q.shape[0], call.q.shape[1], call.k.shape[1]
    if call.layout is not None:
        batch, rows, keys = 1, call.q.shape[0], call.layout.max_k
    shape = (batch, call.q.shape[-2], rows, keys)
    return torch.rand(shape, device=call.q.device) >= call.dropout


REF = TritonReference("ref")
FAST = TritonReference("fast")
