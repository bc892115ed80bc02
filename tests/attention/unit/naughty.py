"""Providers that keep their promises, and one that breaks each of them, by the shape of q."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST


def good(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    return HONEST(q, k, v, **arguments)


def refuses(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    raise NotImplementedError("nothing at all")


def misspelt(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    return HONEST(q, k, v, **arguments)


misspelt.supports = {"bf16", "casual"}  # type: ignore[attr-defined]


def attributed(**attributes: Any) -> Any:
    def kernel(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
        return HONEST(q, k, v, **arguments)

    vars(kernel).update(attributes)
    return kernel


a_word = attributed(supports="causal")
no_set = attributed(supports=None)
no_number = attributed(lse_on_empty_rows="zero")
no_backward = attributed(backward="no")


def elsewhere(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    answer = HONEST(q, k, v, **arguments)
    torch.set_default_device("meta")
    return answer


def naughty(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> Any:
    out, lse = HONEST(q, k, v, **arguments)
    match q.shape[1]:
        case 1:
            return out[:, :, :1], lse
        case 3:
            return out.float(), lse
        case 5:
            return out.to("meta"), lse
        case 64:
            return out * torch.nan, lse
        case 77:
            return q.copy_(out), lse
        case 97:
            return out
        case 100:
            raise RuntimeError("bad day\nwith details")
        case 108:
            return out, None
        case 113:
            k.mul_(2)
        case 130:
            return out, lse.double()
        case 200:
            sys.exit(3)
        case 203:
            return out, lse / 0.6931
        case 257:
            return (out.float() * 1.01).to(out.dtype), lse
    return out, lse


def left_out(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    if arguments["softcap"] or arguments["alibi_slopes"] is not None:
        raise RuntimeError("This build does not support softcap, nor ALiBi.")
    return HONEST(q, k, v, **arguments)
