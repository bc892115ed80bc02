"""Pinproof's reference attention: the Triton kernels behind the signature of flash-attn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.kernels import plan
from pinproof_cell.kernels.tiles import Machine


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    keep: Tensor | None = None,
    mode: str = "ref",
    **keywords: Any,
) -> tuple[Tensor, Tensor]:
    """Attend q to k and v; the keywords are the fields of `pinproof_cell.call.Call`.

    Returns the output in q's type, with the head dimension of v, and the natural log-sum-exp,
    float32 (batch, nheads, seqlen_q), or (nheads, total_q) of a ragged call: 0 and -inf for a row
    that sees no key. A sink has its share in the log-sum-exp. `keep` says which keys dropout leaves
    in: bool or uint8 (batch, nheads, seqlen_q, seqlen_k), of a ragged call (1, nheads, total_q,
    max_k), whose columns are the keys of each row's own sequence. A key that no row of a tile of
    queries sees is never read.

    Mode "ref" computes in float32; "fast" leaves the products to the tensor cores, with P in the
    input type, and splits the keys of a step of decoding where it may. In Triton's interpreter
    both compute in float32, for its bf16 product is broken.

    Raises ValueError for shapes that do not fit, a scale that is not positive, and dropout without
    its mask.
    """
    call = Call(q=q, k=k, v=v, **keywords)
    out, lse, launches = plan.forward(call, keep, mode, machine(q.device))
    for launch in launches:
        launch.run()
    return out.to(q.dtype), lse


def backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    keep: Tensor | None = None,
    mode: str = "ref",
    **keywords: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, each of its input's shape and type, contiguous.

    `out` and `lse` are what `attention` returned for the same arguments, `dout` the gradient of
    the output. The same bits come every time: nothing is added atomically. Mode "fast" rounds P
    and the gradient of the scores to the input type. Rows that nobody sees get 0.

    Raises ValueError for shapes that do not fit, a scale that is not positive, and dropout without
    its mask; NotImplementedError for keys in pages.
    """
    call = Call(q=q, k=k, v=v, **keywords)
    gradients, launches = plan.backward(dout, call, out, lse, keep, mode, machine(q.device))
    for launch in launches:
        launch.run()
    dq, dk, dv = (x.to(given.dtype) for x, given in zip(gradients, (q, k, v), strict=True))
    return dq, dk, dv


def machine(device: torch.device) -> Machine:
    """Return what a launch on `device` must know of it."""
    if device.type != "cuda":
        return Machine()
    properties = torch.cuda.get_device_properties(device)
    return Machine(
        # Older torch does not tell: then take what every GPU since sm_80 has.
        shared=getattr(properties, "shared_memory_per_block_optin", Machine.shared),
        processors=properties.multi_processor_count,
    )
