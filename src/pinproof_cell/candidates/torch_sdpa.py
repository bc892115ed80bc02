"""The fused CUDA kernels behind `scaled_dot_product_attention`, called below it for their LSE.

What each may be asked is what torch's own dispatcher asks of it (`sdp_utils.cpp`): the flash
operator aligns causal bottom-right (`torch.nn.attention.bias` relies on it) and wants heads padded
to a multiple of 8; cuDNN aligns causal top-left, wants multiples of 8 up to 128 and two keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates import LOW_PRECISION, LSE_PLUS_INF
from pinproof_cell.candidates.distribution import failure, version

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call


@dataclass(frozen=True)
class TorchSdpa:
    """One fused kernel of torch; ``operator`` is its name in `torch.ops.aten`.

    ``before`` are the arguments that it alone takes, between v and the probability of dropout.
    """

    name: str
    operator: str
    supports: frozenset[str]
    before: tuple[Any, ...] = ()
    origin: str = "torch"
    lse_on_empty_rows: float = LSE_PLUS_INF

    @property
    def version(self) -> str | None:
        """The version of torch."""
        return version("torch")

    def available(self) -> str | None:
        """Return why this torch or this machine cannot run it, or None."""
        try:
            import torch

            _ = getattr(torch.ops.aten, self.operator).default
            if not torch.cuda.is_available():
                return "torch sees no CUDA device"
            if "cudnn" in self.operator and not torch.backends.cudnn.is_available():
                return "this torch was built without cuDNN"
        except Exception as error:
            return failure(error)
        return None

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend. Raises NotImplementedError for what the operator has no argument for."""
        import torch

        if call.window_size != (-1, -1) or call.softcap or call.alibi_slopes is not None:
            raise NotImplementedError(f"{self.name} does not support windows, softcap or ALiBi")
        head_dim = call.q.shape[3]
        out, lse = getattr(torch.ops.aten, self.operator)(
            *(_aligned(x).transpose(1, 2) for x in (call.q, call.k, call.v)),
            *self.before,
            0.0,
            call.causal,
            False,
            scale=call.scale,
        )[:2]
        out = out.transpose(1, 2)[..., :head_dim]
        # cuDNN's has a last dimension of one; both may be padded along the queries.
        return out, lse.reshape(*lse.shape[:3])[:, :, : call.q.shape[1]]


def _aligned(x: Tensor) -> Tensor:
    """Pad heads with zeros to a multiple of 8, as torch does before it calls the operator."""
    import torch

    missing = -x.shape[3] % 8
    return torch.nn.functional.pad(x, (0, missing)) if missing else x


FLASH = TorchSdpa(
    name="torch-sdpa-flash",
    operator="_scaled_dot_product_flash_attention",
    supports=LOW_PRECISION
    | {"causal", "causal-rectangular", "gqa", "unaligned-head", "wide-head", "strided"}
    | {"empty-rows", "one-key"},
)
CUDNN = TorchSdpa(
    name="torch-sdpa-cudnn",
    operator="_scaled_dot_product_cudnn_attention",
    supports=LOW_PRECISION | {"causal", "gqa", "strided"},
    before=(None, True),  # no bias; compute the log-sum-exp
)
