"""The fused CUDA kernels behind `scaled_dot_product_attention`, called below it for their LSE.

Whether a kernel takes a call is asked of torch itself (`torch.backends.cuda.can_use_*`, which is
what its dispatcher asks): it knows its own version, cuDNN's and the GPU. The flash operator aligns
causal bottom-right and wants heads padded to a multiple of 8 (`torch.nn.attention.bias` relies on
both); cuDNN and the efficient one align it top-left, so that a window, or a causal mask of another
shape, goes through their bias. That bias is of q's type: ALiBi would be rounded in it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates import LOW_PRECISION, LSE_PLUS_INF
from pinproof_cell.candidates.bias import bias, needs_bias
from pinproof_cell.candidates.distribution import Distributed
from pinproof_cell.candidates.gradients import Differentiable
from pinproof_cell.candidates.refusal import refuse

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True, kw_only=True)
class TorchSdpa(Differentiable, Distributed):
    """One fused kernel of torch; ``kind`` is flash, cudnn or efficient."""

    kind: str
    origin: str = "torch"

    @property
    def operator(self) -> Any:
        """The operator in `torch.ops.aten`."""
        import torch

        return getattr(torch.ops.aten, f"_scaled_dot_product_{self.kind}_attention").default

    def missing(self) -> str | None:
        """Look the operator up."""
        import torch

        _ = self.operator
        if self.kind == "cudnn" and not torch.backends.cudnn.is_available():
            return "this torch was built without cuDNN"
        return None

    def attend(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for what torch would not give to this kernel."""
        refuse(self, call)
        arguments = self.arguments(call)
        self._ask(call, *arguments)
        return self.operate(call, *arguments)

    def arguments(self, call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor | None, bool]:
        """Return q, k and v with the heads before the rows, the bias, and the causal flag."""
        q, k, v = (x.transpose(1, 2) for x in (call.q, call.k, call.v))
        if self.kind == "flash":
            q, k, v = map(_aligned, (q, k, v))
        elif needs_bias(call):
            # torch, too, lets the rows of a mask begin at multiples of 16 elements.
            mask = bias(call, call.q.dtype, multiple=16)
            return q, k, v, mask.expand(*q.shape[:2], -1, -1), False
        return q, k, v, None, call.causal

    def operate(
        self, call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """Call the operator."""
        options = {
            "flash": (call.dropout, causal, False),
            "cudnn": (mask, True, call.dropout, causal, False),
            "efficient": (mask, True, call.dropout, causal),
        }
        out, lse = self.operator(q, k, v, *options[self.kind], scale=call.scale)[:2]
        out = out.transpose(1, 2)[..., : call.v.shape[3]]
        # cuDNN's has a last dimension of one; the efficient one's is padded along the queries.
        return out, lse.reshape(*lse.shape[:3])[:, :, : call.q.shape[1]]

    def _ask(
        self, call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool
    ) -> None:
        """Raise NotImplementedError, with its words, where torch would not choose this kernel."""
        from torch.backends import cuda

        # The dispatcher keeps to top-left; bottom-right is what `causal_lower_right` asks for.
        square = q.shape[2] == k.shape[2]
        grouped = q.shape[1] != k.shape[1]
        params = cuda.SDPAParams(q, k, v, mask, call.dropout, causal and square, grouped)
        can_use = getattr(cuda, f"can_use_{self.kind}_attention")
        if can_use(params):
            return
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            can_use(params, debug=True)
        words = "; ".join(str(each.message).splitlines()[0] for each in said)
        raise NotImplementedError(f"{self.name} does not take it, says torch: {words or 'no'}")


def _aligned(x: Tensor) -> Tensor:
    """Pad heads with zeros to a multiple of 8, as torch does before it calls the operator."""
    import torch

    missing = -x.shape[3] % 8
    return torch.nn.functional.pad(x, (0, missing)) if missing else x


_ALL = LOW_PRECISION | {"causal", "causal-rectangular", "wide-head", "strided", "expanded", "far"}
_ALL |= {"dropout", "backward", "lse"}

FLASH = TorchSdpa(
    name="torch-sdpa-flash",
    kind="flash",
    supports=_ALL | {"gqa", "unaligned-head", "empty-rows", "one-key"},
    lse_on_empty_rows=LSE_PLUS_INF,
)
CUDNN = TorchSdpa(
    name="torch-sdpa-cudnn",
    kind="cudnn",
    supports=_ALL | {"gqa", "window", "value-head"},
)
EFFICIENT = TorchSdpa(
    name="torch-sdpa-efficient",
    kind="efficient",
    supports=_ALL | {"fp32", "window", "value-head", "one-key"},
)
