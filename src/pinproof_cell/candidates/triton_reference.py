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
    supports: frozenset[str] = FEATURES - {
        *("varlen", "empty-sequences", "paged", "page-small", "page-16", "page-64", "page-256"),
        *("left-padding", "splits", "sinks", "dropout"),
    }
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

            from pinproof_cell.kernels import reference

            if not reference.INTERPRETED and not torch.cuda.is_available():
                return "torch sees no CUDA device"
        except Exception as error:
            return failure(error)
        return None

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend in this mode."""
        from pinproof_cell.kernels import reference

        return reference.attention(call.q, call.k, call.v, mode=self.mode, **call.keywords())

    def backward(
        self, dout: Tensor, call: Call, out: Tensor, lse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients in this mode."""
        from pinproof_cell.kernels import reference

        arguments = call.keywords()
        return reference.backward(
            dout, call.q, call.k, call.v, out, lse, mode=self.mode, **arguments
        )


REF = TritonReference("ref")
FAST = TritonReference("fast")
