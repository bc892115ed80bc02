"""The z-rule: whether an output is what a correct kernel of its precision may compute.

The rule models what such a kernel must commit: P rounded to the input type, one rounding of the
output, float32 accumulation, the tail of P, and dropout's factor. An error is counted in units of
that noise, element by element, so that a wrong small row cannot hide behind a large one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pinproof_cell.judge.findings import Finding, above
from pinproof_cell.judge.thresholds import Thresholds
from pinproof_cell.oracle.forward import Truth

#: Half a unit in the last place relative to one (u), and what may be 0 for want of range, by type:
#: in fp16 the smallest subnormal number, else the smallest normal one of float32, below which GPUs
#: and vectorised code flush. In float32 P errs by the exponential of a GPU, ex2.approx: 2^-22.
ROUNDOFF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-22}
TINY = {torch.bfloat16: 2.0**-126, torch.float16: 2.0**-24, torch.float32: 2.0**-126}
#: The variance of the tail of P and of dS: in fp16 they are rounded to whole subnormal numbers;
#: else what lies below 2^-126, the smallest normal number, is 0 for a GPU and for vectorised exp.
TAIL = {torch.bfloat16: 2.0**-252, torch.float16: 2.0**-48 / 12, torch.float32: 2.0**-252}

PASS, DEGRADED, FAIL = "PASS", "DEGRADED", "FAIL"


@dataclass(frozen=True)
class Judgement:
    """PASS, DEGRADED or FAIL; each finding names a statistic, its value and its limit."""

    status: str
    stats: dict[str, float]
    findings: tuple[Finding, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(finding.text for finding in self.findings)


def judge(
    out: Tensor,
    lse: Tensor | None,
    truth: Truth,
    *,
    thresholds: Thresholds,
    dtype: torch.dtype,
    empty_lse: float = -math.inf,
    baseline: Tensor | None = None,
    needs_lse: bool = True,
    dropout: float = 0.0,
) -> Judgement:
    """Judge an output (batch, seqlen_q, nheads, headdim) and its log-sum-exp.

    `dtype` is the type of the inputs, `empty_lse` what this candidate writes for a row without
    keys; without `needs_lse` the log-sum-exp may be None. `dropout` is its probability. `baseline`
    is what low-precision PyTorch computes: it feeds flash-attn's own rule, fa_ratio, whose limit
    is 2; that is shown and never decides.
    """
    if tuple(out.shape) != tuple(truth.out.shape) or out.dtype != dtype:
        found = f"{tuple(out.shape)} {out.dtype}"
        text = f"output is {found}, not {tuple(truth.out.shape)} {dtype}"
        return Judgement(FAIL, {}, (Finding("contract", "shape", text),))
    error = out.double() - truth.out
    same = torch.isfinite(out) & torch.isfinite(truth.out)
    error = torch.where(same, error, 0.0)
    variance = sigma2(truth, dtype, dropout)
    stats = statistics(error, variance, truth, dtype)
    if baseline is not None:
        stats["fa_ratio"] = fa_ratio(error, baseline, truth.out, thresholds.fa_absolute)
    failed = list(_non_finite(out, truth))
    if needs_lse or lse is not None:
        failed += _lse(lse, truth, empty_lse, thresholds, stats)
    failed += _above(stats, thresholds.fail)
    # Dropout's factor is off everywhere by as much: z counts that in units of u / sqrt(3).
    off = factor_error(dropout, dtype) / ROUNDOFF[dtype]
    apart = variance - (off * ROUNDOFF[dtype] * truth.out).square()
    limits = _degraded(truth, apart, dtype, thresholds, dropout)
    limits["beta"] += off
    limits["bias"] += off * 3**0.5
    degraded = _above(stats, limits)
    # Their limits depend on the case: this is what compares, and what calibration looks at.
    stats |= {f"{name}_share": abs(stats[name]) / limits[name] for name in ("bias", "beta")}
    status = FAIL if failed else DEGRADED if degraded else PASS
    return Judgement(status, stats, tuple(failed or degraded))


def sigma2(truth: Truth, dtype: torch.dtype, dropout: float = 0.0) -> Tensor:
    """Return the variance that a correct kernel may have, per element of the output.

    With `dropout` it may round P twice, before and after P is multiplied by the factor.
    """
    u = ROUNDOFF[dtype]
    variance = u * u / 3 * truth.out.square() + _of_p(truth.pv2, u, dropout) + floor(truth).square()
    variance += (factor_error(dropout, dtype) * truth.out).square()
    return variance + TAIL[dtype] * truth.tail + TINY[dtype] ** 2


def _of_p(sums: Tensor, u: float, dropout: float) -> Tensor:
    """Return the variance of `sums` of squares with P; it is rounded once, with dropout twice."""
    return (2 if dropout else 1) * u * u / 3 * sums


def factor_error(dropout: float, dtype: torch.dtype) -> float:
    """Return by how much dropout's factor, 1 / (1 - `dropout`), may be off, relative to it.

    A kernel computes it in float32, of a probability in float32, and may round it to `dtype`.
    """
    single = 1 / (1 - torch.tensor(dropout, dtype=torch.float32))
    # Beyond the range of `dtype` it is rounded by nobody.
    possible = [float(x) for x in (single, single.to(dtype)) if torch.isfinite(x)]
    return max((abs(factor * (1 - dropout) - 1) for factor in possible), default=0.0)


def floor(truth: Truth) -> Tensor:
    """Return what float32 leaves of the output: one error of P for each row, and of its sums."""
    return (8 + truth.seqlen_k / 128 + truth.logit_error) * 2.0**-24 * truth.pav


def statistics(
    error: Tensor, variance: Tensor, truth: Truth, dtype: torch.dtype
) -> dict[str, float]:
    """Return max_z, row_rms, rms, bias and beta; rows without keys count in the first two only.

    An output that is all below what `dtype` may flush to 0 has no scale: its beta is 0.
    """
    if not error.numel():
        return dict.fromkeys(("max_z", "row_rms", "rms", "bias", "beta"), 0.0)
    z = error / variance.sqrt()
    rows = z.square().mean(-1)
    keyed = (~truth.empty).transpose(1, 2)
    some = z[keyed]
    power = _power(truth, dtype)
    return {
        "max_z": float(z.abs().max()),
        "row_rms": float(rows.max().sqrt()),
        "rms": float(some.square().mean().sqrt()) if some.numel() else 0.0,
        "bias": float((some * truth.out[keyed].sign()).mean()) if some.numel() else 0.0,
        "beta": float((error * truth.out).sum()) / power / ROUNDOFF[dtype] if power else 0.0,
    }


def _power(truth: Truth, dtype: torch.dtype) -> float:
    power = float(truth.out.square().sum())
    return power if power > TINY[dtype] ** 2 else 0.0


def _degraded(
    truth: Truth, variance: Tensor, dtype: torch.dtype, thresholds: Thresholds, dropout: float
) -> dict[str, float]:
    """Return the limits of DEGRADED, widened by what long rows and few samples explain."""
    limits, u, tail = dict(thresholds.degraded), ROUNDOFF[dtype], TAIL[dtype]
    # Tensor cores truncate while they accumulate: a bias that grows with the number of keys.
    t = truth.seqlen_k / 16 * 2.0**-24 / u
    rows = int((~truth.empty).sum())
    power = _power(truth, dtype)
    # Elements err for themselves, but where P is off all of a row is.
    of_p = _of_p(truth.pv2, u, dropout) + tail * truth.tail
    alone = float(((variance - of_p) * truth.out.square()).sum())
    together = float((_of_p(truth.along, u, dropout) + tail * truth.tail_along).sum())
    together += float((floor(truth) * truth.out.abs()).sum(-1).square().sum())
    spread = max(alone + together, 0.0) ** 0.5 / power / u if power else 0.0
    # Where few P differ, their relative errors, of variance u^2 / 3, hardly average.
    alike = max(truth.levels * (1 - dropout), 1.0) ** -0.5
    spread = math.hypot(spread, alike / 3**0.5)
    limits["rms"] = of_few(limits, _of_one(truth) / max(rows, 1) ** 2)
    limits["bias"] += 1.74 * t + 2 / max(rows, 1) ** 0.5 + 3 * alike
    # Five: a search asks thousands of cases, and rows are not always independent.
    limits["beta"] += t + 5 * spread
    return limits


def of_few(limits: Mapping[str, float], share: float) -> float:
    """Return the limit of the RMS of rows, `share` being 1 / n for n that err by one number each.

    What one row may be off, the mean of few may be too.
    """
    most, mean = limits["row_rms"] ** 2, limits["rms"] ** 2
    return float((mean + (most - mean) * min(share, 1.0)) ** 0.5)


def _of_one(truth: Truth) -> float:
    """Return how many rows there are of which one P is all; rows of many P count by their share.

    The share is the variance that P's errors bring along the row, relative to that of one P; where
    values cancel, so that the row is less than its parts, relative to these.
    """
    power, parts = (x.sum(-1).transpose(1, 2) for x in (truth.out.square(), truth.pv2))
    share = 2 * truth.along / (power * (power + parts))
    return float(share.nan_to_num(0.0, 0.0, 0.0).clamp(max=1.0).sum())


def _above(stats: Mapping[str, float], limits: Mapping[str, float]) -> list[Finding]:
    names = {"max_z": "max|z|", "row_rms": "row RMS", "rms": "RMS", "bias": "|bias|"}
    return [
        above("output", name, names.get(name, f"|{name}|"), abs(stats[name]), limit)
        for name, limit in limits.items()
        if not abs(stats[name]) <= limit
    ]


def _non_finite(out: Tensor, truth: Truth) -> Iterator[Finding]:
    for word, where in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        wrong = int((where(out) != where(truth.out)).sum())
        if wrong:
            text = f"{wrong} of {out.numel()} outputs are {word} where they must not be"
            yield Finding("output", "non_finite", text, wrong, 0)


def lse_tolerance(truth: Truth, lse: Tensor, thresholds: Thresholds) -> Tensor:
    """Return by how much log-sum-exps may be off: four times the error of a logit, and more."""
    logits = 4 * 2.0**-24 * truth.logit_error
    return thresholds.lse_absolute + thresholds.lse_relative * lse.abs() + logits


def _lse(
    lse: Tensor | None,
    truth: Truth,
    empty_lse: float,
    thresholds: Thresholds,
    stats: dict[str, float],
) -> Iterator[Finding]:
    """Compare the log-sum-exp; adds lse_error, the largest error as a share of its tolerance."""
    if lse is None:
        yield Finding("lse", "lse_missing", "the log-sum-exp is missing")
        return
    if tuple(lse.shape) != tuple(truth.lse.shape):
        text = f"log-sum-exp is {tuple(lse.shape)}, not {tuple(truth.lse.shape)}"
        yield Finding("lse", "lse_shape", text)
        return
    keyed = ~truth.empty
    found, wanted = lse[keyed].double(), truth.lse[keyed]
    share = (found - wanted).abs() / lse_tolerance(truth, wanted, thresholds)
    finite = torch.isfinite(found)
    stats["lse_error"] = float(share[finite].max()) if bool(finite.any()) else 0.0
    wrong = int((~finite).sum())
    if wrong:
        text = f"log-sum-exp is not finite in {wrong} rows that see keys"
        yield Finding("lse", "non_finite", text, wrong, 0)
    if stats["lse_error"] > 1:
        text = f"log-sum-exp error {stats['lse_error']:.3g} x its tolerance"
        yield Finding("lse", "lse_error", text, stats["lse_error"], 1.0)
    strange, sunk = lse[truth.empty].double(), truth.lse[truth.empty]
    # With a sink a row without keys may also say that the sink is all it has.
    sink = torch.isfinite(sunk).all() and torch.allclose(strange, sunk, thresholds.lse_relative)
    if not sink and bool((strange != empty_lse).any()):
        text = f"log-sum-exp of rows without keys is not always {empty_lse}"
        yield Finding("lse", "lse_on_empty_rows", text)


def fa_ratio(error: Tensor, baseline: Tensor, truth: Tensor, absolute: float = 0.0) -> float:
    """Return flash-attn's max error over that of low-precision PyTorch.

    Its tests (`tests/test_flash_attn.py`) allow 2 for the output, 3 for gradients.
    """
    if not error.numel():
        return 0.0
    ours = max(float(error.abs().max()) - absolute, 0.0)
    theirs = float((baseline.double() - truth).abs().max())
    return ours / theirs if theirs and ours else 0.0
