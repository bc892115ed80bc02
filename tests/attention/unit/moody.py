"""A provider with every kind of bad day, chosen by the shape of q: the supervisor's test bench."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import Any

from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.oracle import forward as oracle

_calls = itertools.count()


def moody(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    truth = oracle.attention(Call(q=q, k=k, v=v, **arguments))
    out, lse = truth.out.to(q.dtype), truth.lse.float()
    match q.shape[1]:
        case 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 3:
            time.sleep(600)
        case 5:
            raise RuntimeError("bad day\nwith details")
        case 64:
            out = out * (2 - next(_calls) % 2)
        case 77:
            out = out * 2
        case 97:
            raise RuntimeError("This flash attention build does not support local attention.")
        case 113:
            return truth.out.float(), lse
    return out, lse


moody.supports = frozenset({"bf16", "fp16", "causal", "causal-rectangular", "gqa"}) | {  # type: ignore[attr-defined]
    "wide-head",
    "one-key",
    "window",
}
