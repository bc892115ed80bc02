"""The backward judge passes what rounding explains and no broken gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from emulated import SOME, examined, gradients

from pinproof_cell.call import Call
from pinproof_cell.judge import thresholds
from pinproof_cell.judge.backward import judge, sigma2, statistics
from pinproof_cell.judge.forward import FAIL, PASS, Judgement
from pinproof_cell.oracle import backward as oracle_backward
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.grid import PLAIN

LIMITS = thresholds.load("cpu")
PEAKED: dict[str, Any] = {"dtype": "fp16", "kind": "peaked", "backward": True}
SHARP = Case(
    *(280, 8, 8),
    head_dim_v=8,
    batch=3,
    scale=16.0,
    dtype="fp16",
    kind="shifted",
    backward=True,
)
CASES = [case for case in PLAIN if case.seqlen_k]
DEFECTS: dict[str, Callable[[Case], bool]] = {
    "grad-softcap-not-derived": lambda case: case.softcap > 0,
    "grad-window-ignored": lambda case: case.window != (-1, -1),
    "grad-alibi-ignored": lambda case: case.alibi,
    "grad-no-delta": lambda case: case.seqlen_k > 1,
    "grad-delta-of-first-tile": lambda case: case.seqlen_q > 64 and case.seqlen_k > 1,
    "grad-group-last-head": lambda case: case.heads != case.heads_k,
    "grad-dk-scale-twice": lambda case: case.seqlen_k > 1,
    "grad-dq-scale-missing": lambda case: case.seqlen_k > 1,
    "grad-top-left": lambda case: case.causal and case.seqlen_q != case.seqlen_k,
    "grad-dout-strides": lambda case: case.memory == "packed",
}


@functools.cache
def truth_of(case: Case) -> oracle_backward.Truth:
    drawn, dout = inputs.generate(case, 0, "cpu"), inputs.output_gradient(case, 0, "cpu")
    return oracle_backward.backward(dout, drawn)


def verdict(case: Case, dq: torch.Tensor, dk: torch.Tensor, dv: torch.Tensor) -> Judgement:
    dtype = inputs.DTYPES[case.dtype]
    return judge(dq, dk, dv, truth_of(case), thresholds=LIMITS, dtype=dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_rounding_where_a_kernel_rounds_passes(case: Case) -> None:
    """Gradients whose only errors are the roundings of their type are PASS in every case."""
    found = verdict(case, *gradients(case))
    assert found.status == PASS, found.reasons
    assert max(value for name, value in found.stats.items() if name.endswith("max_z")) < 5


@pytest.mark.parametrize(
    ("case", "defect"),
    [
        pytest.param(case, defect, id=f"{defect}-{case.id}")
        for defect, active in DEFECTS.items()
        for case in filter(active, SOME)
    ],
)
def test_a_broken_gradient_fails(case: Case, defect: str) -> None:
    """Each known logic error of a backward kernel FAILs in every case that wakes it."""
    assert verdict(case, *gradients(case, defect)).status == FAIL


@pytest.mark.parametrize("case", [c for c in SOME if c.dtype == "fp16"], ids=lambda c: c.id)
def test_too_coarse_a_type_inside_does_not_pass(case: Case) -> None:
    """P and dS rounded to bf16 for fp16 inputs is at least DEGRADED."""
    assert verdict(case, *gradients(case, "grad-ds-in-bf16")).status != PASS


@pytest.mark.parametrize(("floor", "passes"), [(2.0**-126, True), (2.0**-110, False)])
def test_weights_that_float32_flushes_to_zero_are_no_error_and_larger_ones_are(
    floor: float, passes: bool
) -> None:
    """Keys that are seen with weights near 2^-126 alone get gradients of that size, or 0."""
    case = replace(CASES[0], seqlen_q=113, seqlen_k=130, heads=4, heads_k=2, causal=True)
    case = replace(case, dtype="bf16", kind="large", backward=True)
    truth = truth_of(case)
    dq, dk, dv = (
        torch.where(x.value.abs() < floor, 0.0, x.value).to(torch.bfloat16)
        for x in (truth.dq, truth.dk, truth.dv)
    )
    assert bool((dk != truth.dk.value.to(torch.bfloat16)).any())
    assert (verdict(case, dq, dk, dv).status == PASS) is passes


def test_one_nan_and_a_wrong_shape_or_type_fail() -> None:
    """A single NaN, a missing key and float32 each fail with a reason that names the gradient."""
    case = Case(128, 128)
    dq, dk, dv = gradients(case)
    spoiled = dk.clone()
    spoiled[1, 5, 1, 3] = torch.nan
    assert verdict(case, dq, spoiled, dv).reasons == (
        "1 of 32768 numbers of dK are NaN where they must not be",
    )
    assert "dV is (2, 127, 2, 64)" in verdict(case, dq, dk, dv[:, 1:]).reasons[0]
    assert "dQ is (2, 128, 2, 64) torch.float32" in verdict(case, dq.float(), dk, dv).reasons[0]


def test_what_nobody_sees_must_be_zero() -> None:
    """The smallest number in a gradient that is exactly 0 fails, in queries and in keys."""
    case = Case(130, 2, causal=True)
    dq, dk, dv = gradients(case)
    assert verdict(case, dq, dk, dv).status == PASS
    spoiled = dq.clone()
    spoiled[0, 0, 0, 0] = 1e-6
    assert "dQ max|z|" in verdict(case, spoiled, dk, dv).reasons[0]
    hidden = Case(10, 80, window=(3, 0))
    dq, dk, dv = gradients(hidden)
    spoiled = dv.clone()
    spoiled[0, 0, 0, 0] = 1e-6
    assert verdict(hidden, dq, dk, dv).status == PASS
    assert "dV max|z|" in verdict(hidden, dq, dk, spoiled).reasons[0]


def test_heads_of_a_group_may_be_rounded_each() -> None:
    """Shares of query heads in the input type, added in float32, pass: flash-attn 2 does so."""
    case = Case(200, 200, heads=8, heads_k=1, causal=True)
    drawn, dout = inputs.generate(case, 0, "cpu"), inputs.output_gradient(case, 0, "cpu")
    whole = oracle_backward.backward(
        dout,
        replace(drawn, k=drawn.k.expand(-1, -1, 8, -1), v=drawn.v.expand(-1, -1, 8, -1)),
    )
    dq = whole.dq.value.bfloat16()
    dk, dv = (
        x.value.bfloat16().float().sum(2, keepdim=True).bfloat16() for x in (whole.dk, whole.dv)
    )
    assert verdict(case, dq, dk, dv).status == PASS
    # Not so every head's query gradient taken from its neighbour.
    assert verdict(case, dq.roll(1, 2), dk, dv).status == FAIL


def test_heads_of_a_group_that_agree_pass() -> None:
    """With equal heads in a group of 64 the last rounding is all, and it is allowed for."""
    q, dout = (torch.randn(1, 40, 1, 32).bfloat16().expand(-1, -1, 64, -1) for _ in range(2))
    k, v = (torch.randn(1, 40, 1, 32).bfloat16() for _ in range(2))
    truth = oracle_backward.backward(dout, Call(q=q, k=k, v=v))
    rounded = [x.value.bfloat16() for x in (truth.dq, truth.dk, truth.dv)]
    found = judge(*rounded, truth, thresholds=LIMITS, dtype=torch.bfloat16)
    assert found.status == PASS
    assert max(found.stats.values()) < 2


@pytest.mark.parametrize("kernel", ["honest", "tails-flushed", "rounded-early"])
@pytest.mark.parametrize(
    "case",
    [
        Case(280, 8, 8, head_dim_v=8, batch=3, scale=16.0, dtype="fp16", kind="shifted"),
        Case(129, 257, 24, head_dim_v=256, scale=16.0, dtype="fp16", kind="peaked"),
        Case(2, 1280, 104, heads=3, heads_k=3, batch=1, causal=True, dtype="fp16", kind="edge"),
        Case(15, 512, 200, heads=1, heads_k=1, scale=16.0, memory="transposed"),
    ],
    ids=lambda case: case.id,
)
def test_the_tails_of_p_and_ds_may_be_rounded_before_what_multiplies_them(
    kernel: str, case: Case
) -> None:
    """Each is a right kernel, and orders the steps in another way."""
    found = examined(kernel, replace(case, backward=True))
    assert found.status == PASS, found.reasons
    assert found.stats["dk_row_rms"] < 3


@pytest.mark.parametrize(
    ("case", "seed"),
    [
        (Case(17, 2, 176, dropout=0.7, scale=16.0, dtype="fp16", kind="shifted"), 1205),
        (Case(2, 26, 63, heads=3, heads_k=3, batch=9, dropout=0.9, **PEAKED), 1711),
        (Case(78, 10, 8, heads=8, heads_k=1, batch=1, dropout=0.9, scale=16.0, **PEAKED), 2668),
    ],
    ids=lambda part: getattr(part, "id", str(part)),
)
def test_what_steps_leave_of_the_output_moves_delta(case: Case, seed: int) -> None:
    """Without that term dQ and dK reached a max|z| of 8.1 to 9.2 here, of a limit of 8."""
    found = examined("rounded-early", replace(case, backward=True), seed)
    assert found.status == PASS, found.reasons
    assert max(found.stats["dq_max_z"], found.stats["dk_max_z"]) < 5


@pytest.mark.parametrize(
    ("kernel", "case", "reached"),
    [
        ("honest", SHARP, 27.81),
        ("rounded-early", SHARP, 67.97),
        ("rounded-early", Case(129, 257, 24, head_dim_v=256, scale=16.0, **PEAKED), 41.30),
    ],
)
def test_an_emulation_reaches_what_a_gpu_reached_where_tails_count_alone(
    kernel: str, case: Case, reached: float
) -> None:
    """Torch's flash and efficient kernels had these max|z| on an H200, by the rule before it.

    Delta's share of a rounded P was not counted either, and half of the error of a logit: that
    makes less than a tenth of them.
    """
    truth = truth_of(case)
    seen = inputs.generate(case, 0, "cpu").q.double().square().sum(1, keepdim=True)
    alone = replace(truth.dk, tail=seen.expand_as(truth.dk.tail))
    dk = gradients(case, kernel)[1]
    found = statistics(dk, alone, sigma2(alone, truth, dk.dtype))
    assert found["max_z"] == pytest.approx(reached, rel=0.1)


def test_the_mean_of_few_rows_of_dq_may_be_off_as_far_as_one_row_may() -> None:
    """Each has one delta. Not so keys: three that are as far off are too many."""
    for case, names in (
        (Case(3, 200, heads=1, heads_k=1, batch=1), {"dq": PASS, "dv": "DEGRADED"}),
        (Case(200, 3, heads=8, heads_k=1, causal=True), {"dq": "DEGRADED", "dv": "DEGRADED"}),
    ):
        truth, given = truth_of(case), dict(zip(("dq", "dk", "dv"), gradients(case), strict=True))
        for name, status in names.items():
            wanted = getattr(truth, name)
            noise = sigma2(wanted, truth, given[name].dtype).sqrt()
            off = wanted.value + 1.6 * noise * torch.sign(torch.randn_like(noise))
            found = verdict(case, *(given | {name: off.to(given[name].dtype)}).values())
            assert found.status == status, (case.id, name, found.reasons)


def test_the_backward_has_limits_for_every_target() -> None:
    """A target that nobody calibrated takes the smallest of the known limits."""
    found, known = thresholds.load("sm_120"), [thresholds.load(t) for t in ("cpu", "sm_90")]
    for name in ("max_z", "row_rms", "rms"):
        assert found.backward_degraded[name] == min(t.backward_degraded[name] for t in known)
    assert set(found.backward_fail) == {"max_z", "row_rms"}
