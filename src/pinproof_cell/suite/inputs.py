"""The inputs of a case: seeded, and the same on every device."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.suite.cases import Case

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Inputs:
    """q (batch, seqlen_q, nheads, headdim), k and v (batch, seqlen_k, nheads_k, headdim).

    ``arguments`` are the keywords of the call: softmax_scale, causal, window_size, softcap and
    alibi_slopes, float32 (batch, nheads).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    arguments: dict[str, Any]


def generate(case: Case, seed: int, device: str) -> Inputs:
    """Draw the inputs of `case`; each case has a stream of its own, whatever ran before it."""
    source = torch.Generator().manual_seed(seed ^ zlib.crc32(case.id.encode()))

    def normal(length: int, heads: int) -> Tensor:
        return torch.randn(case.batch, length, heads, case.head_dim, generator=source)

    q = normal(case.seqlen_q, case.heads)
    k = normal(case.seqlen_k, case.heads_k)
    v = normal(case.seqlen_k, case.heads_k)
    if case.kind == "peaked":
        q, k = 2 * q, 2 * k
        # V says where it stands: a key taken from the wrong place shows in the output.
        v = v + (4 * torch.arange(case.seqlen_k) / max(case.seqlen_k, 1))[None, :, None, None]
    dtype = DTYPES[case.dtype]
    q, k, v = (x.to(device=device, dtype=dtype) for x in (q, k, v))
    if case.packed:
        q, k, v = torch.stack((q, k, v), dim=2).unbind(2)
    slopes = None
    if case.alibi:
        # The usual geometric slopes, other ones for each element of the batch.
        steps = torch.arange(1, case.batch * case.heads + 1).reshape(case.batch, case.heads)
        slopes = torch.exp2(-8.0 * steps / steps.numel()).to(device=device, dtype=torch.float32)
    arguments = {
        "softmax_scale": case.scale,
        "causal": case.causal,
        "window_size": case.window,
        "softcap": case.softcap,
        "alibi_slopes": slopes,
    }
    return Inputs(q, k, v, arguments)


def output_gradient(case: Case, seed: int, device: str) -> Tensor:
    """Draw the gradient of the output, (batch, seqlen_q, nheads, headdim), from its own stream.

    Of a packed case it is a view as well, with the heads outside: autograd hands such ones over.
    """
    source = torch.Generator().manual_seed(seed ^ zlib.crc32(f"{case.id} dout".encode()))
    shape = (case.batch, case.seqlen_q, case.heads, case.head_dim)
    drawn = torch.randn(shape, generator=source).to(device=device, dtype=DTYPES[case.dtype])
    return drawn.transpose(1, 2).contiguous().transpose(1, 2) if case.packed else drawn
