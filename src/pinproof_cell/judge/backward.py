"""The z-rule of the gradients: whether dQ, dK and dV are what a correct kernel may compute.

As `pinproof_cell.judge.forward`, with the noise that a backward kernel must commit: P and dS
rounded to the input type, delta from a rounded output that rounded P made, one rounding of each
gradient, float32 accumulation, and the tails of P, dS and O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pinproof_cell.judge.findings import Finding, above
from pinproof_cell.judge.forward import (
    DEGRADED,
    FAIL,
    PASS,
    ROUNDOFF,
    TAIL,
    TINY,
    Judgement,
    fa_ratio,
    of_few,
)
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.oracle.backward import Gradient, Truth

_WORDS = {"max_z": "max|z|", "row_rms": "row RMS", "rms": "RMS"}


def judge(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    truth: Truth,
    *,
    thresholds: Thresholds,
    dtype: torch.dtype,
    baselines: Sequence[Tensor] = (),
) -> Judgement:
    """Judge the gradients, each of the shape of its input and of `dtype`, the inputs' type.

    The statistics are those of `statistics` under the gradient's name, such as dk_max_z. A row's
    error in dQ comes from one rounded delta, so rows are allowed more than in the forward.
    `baselines` are the gradients of low-precision PyTorch: they feed flash-attn's own rule, such as
    dk_fa_ratio, whose limit is 3; that is shown and never decides.
    """
    stats: dict[str, float] = {}
    failed: list[Finding] = []
    degraded: list[Finding] = []
    for name, found, baseline in zip(
        ("dQ", "dK", "dV"), (dq, dk, dv), baselines or (None, None, None), strict=True
    ):
        wanted: Gradient = getattr(truth, name.lower())
        if tuple(found.shape) != tuple(wanted.value.shape) or found.dtype != dtype:
            shape = f"{tuple(found.shape)} {found.dtype}"
            text = f"{name} is {shape}, not {tuple(wanted.value.shape)} {dtype}"
            failed.append(Finding("contract", "shape", text))
            continue
        own = statistics(found, wanted, sigma2(wanted, truth, dtype))
        stats |= {f"{name.lower()}_{key}": value for key, value in own.items()}
        if baseline is not None:
            error = (found.double() - wanted.value).nan_to_num(0.0, 0.0, 0.0)
            plain = baseline.reshape(found.shape)
            stats[f"{name.lower()}_fa_ratio"] = fa_ratio(error, plain, wanted.value)
        failed += _non_finite(name, found, wanted.value)
        failed += _above(name, own, thresholds.backward_fail)
        limits = thresholds.backward_degraded
        if name != "dV":  # one delta for each query is in all of dQ and dK
            deltas = max(int(visible(truth.dq).sum()), 1)
            limits = {**limits, "rms": of_few(limits, 1 / deltas)}
        degraded += _above(name, own, limits)
    status = FAIL if failed else DEGRADED if degraded else PASS
    return Judgement(status, stats, tuple(failed or degraded))


def sigma2(gradient: Gradient, truth: Truth, dtype: torch.dtype) -> Tensor:
    """Return the variance that a correct kernel may have, per element of the gradient.

    The floor of float32 grows with the logits and with the length, as that of the forward.
    """
    u = ROUNDOFF[dtype]
    floor = 8 + truth.seqlen / 128 + truth.logit_error
    variance = u * u / 3 * (gradient.spread + gradient.value.square())
    variance += (floor * 2.0**-24 * gradient.magnitude).square()
    return variance + TAIL[dtype] * gradient.tail + TINY[dtype] ** 2


def statistics(found: Tensor, wanted: Gradient, variance: Tensor) -> dict[str, float]:
    """Return max_z, row_rms and rms; rows that nobody sees count in the first two only."""
    if not found.numel():
        return dict.fromkeys(_WORDS, 0.0)
    error = found.double() - wanted.value
    finite = torch.isfinite(found) & torch.isfinite(wanted.value)
    z = torch.where(finite, error, 0.0) / variance.sqrt()
    rows = z.square().mean(-1)
    some = rows[visible(wanted)]
    return {
        "max_z": float(z.abs().max()),
        "row_rms": float(rows.max().sqrt()),
        "rms": float(some.mean().sqrt()) if some.numel() else 0.0,
    }


def visible(gradient: Gradient) -> Tensor:
    """Return which rows take part at all: (batch, seqlen, nheads)."""
    return gradient.tail.sum(-1) > 0


def _above(name: str, stats: Mapping[str, float], limits: Mapping[str, float]) -> Iterator[Finding]:
    for key, limit in limits.items():
        if not stats[key] <= limit:
            statistic = f"{name.lower()}_{key}"
            yield above("gradient", statistic, f"{name} {_WORDS[key]}", stats[key], limit)


def _non_finite(name: str, found: Tensor, wanted: Tensor) -> Iterator[Finding]:
    for word, where in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        wrong = int((where(found) != where(wanted)).sum())
        if wrong:
            text = f"{wrong} of {found.numel()} numbers of {name} are {word} where they must not be"
            yield Finding("gradient", f"{name.lower()}_non_finite", text, wrong, 0)
