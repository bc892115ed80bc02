"""Whether two answers of one kernel to the same question agree as far as rounding allows.

Each answer may be off by the sigma of `pinproof_cell.judge.forward`, so their difference by the
root of the sum of both variances; what the two truths differ by is taken off first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.judge.findings import Finding, above
from pinproof_cell.judge.forward import DEGRADED, FAIL, PASS, Judgement, lse_tolerance, sigma2
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.oracle.forward import Truth

_WORDS = {"max_z": "max|z|", "row_rms": "row RMS"}


@dataclass(frozen=True)
class Side:
    """One answer, out (batch, seqlen_q, nheads, headdim_v) and log-sum-exp, and its truth."""

    out: Tensor
    lse: Tensor | None
    truth: Truth


def agree(first: Side, second: Side, *, thresholds: Thresholds, words: str) -> Judgement:
    """Judge the difference of two answers; `words` say what should be equal."""
    dtype = first.out.dtype
    error = first.out.double() - first.truth.out - (second.out.double() - second.truth.out)
    finite = torch.isfinite(first.out) & torch.isfinite(second.out)
    variance = sigma2(first.truth, dtype) + sigma2(second.truth, dtype)
    z = torch.where(finite, error, 0.0) / variance.sqrt()
    stats = {"max_z": 0.0, "row_rms": 0.0}
    if z.numel():
        rows = z.square().mean(-1)
        stats = {"max_z": float(z.abs().max()), "row_rms": float(rows.max().sqrt())}
    failed = [*_non_finite(first, second, words), *_lse(first, second, thresholds, words)]
    failed += _above(stats, thresholds.fail, words)
    degraded = list(_above(stats, thresholds.degraded, words))
    status = FAIL if failed else DEGRADED if degraded else PASS
    return Judgement(status, {}, tuple(failed or degraded))


def _above(stats: dict[str, float], limits: object, words: str) -> Iterator[Finding]:
    for name, value in stats.items():
        limit = limits[name]  # type: ignore[index]
        if not value <= limit:
            yield above(
                "identity", name, f"{words}: {_WORDS[name]} of the difference", value, limit
            )


def _non_finite(first: Side, second: Side, words: str) -> Iterator[Finding]:
    wrong = int((torch.isfinite(first.out) != torch.isfinite(second.out)).sum())
    if wrong:
        text = f"{words}: {wrong} of {first.out.numel()} numbers are finite in one of them only"
        yield Finding("identity", "non_finite", text, wrong, 0)


def _lse(first: Side, second: Side, thresholds: Thresholds, words: str) -> Iterator[Finding]:
    if first.lse is None or second.lse is None:
        return
    keyed = ~first.truth.empty & ~second.truth.empty
    wanted = [side.truth.lse[keyed] for side in (first, second)]
    error = first.lse[keyed].double() - wanted[0] - (second.lse[keyed].double() - wanted[1])
    allowed = sum(
        lse_tolerance(side.truth, lse, thresholds)
        for side, lse in zip((first, second), wanted, strict=True)
    )
    share = (error.abs() / allowed).nan_to_num(torch.inf, torch.inf)
    worst = float(share.max()) if share.numel() else 0.0
    if worst > 1:
        text = f"{words}: the log-sum-exps differ by {worst:.3g} x their tolerance"
        yield Finding("identity", "lse_error", text, worst, 1.0)
    empty = first.truth.empty & second.truth.empty
    if not torch.equal(first.lse[empty], second.lse[empty]):
        text = f"{words}: the log-sum-exps of rows without keys differ"
        yield Finding("identity", "lse_on_empty_rows", text)
