"""The judge passes what rounding explains and nothing that a broken kernel writes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from emulated import examined

from pinproof_cell.call import Call
from pinproof_cell.judge import thresholds
from pinproof_cell.judge.forward import FAIL, PASS, Judgement, factor_error, judge, sigma2
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.oracle import lowprecision
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.grid import PLAIN

LIMITS = thresholds.load("cpu")
#: One row in all, if there is one query.
ALONE: dict[str, Any] = {"heads": 1, "heads_k": 1, "batch": 1}
CASES = [case for case in PLAIN if case.seqlen_k]


def honest(drawn: Call, **changed: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend with P rounded to the input type, as a correct kernel does."""
    drawn = replace(drawn, **changed)
    truth = oracle.attention(drawn)
    # One-hot values read P itself out of the oracle.
    keys = drawn.k.shape[1]
    eye = torch.eye(keys).expand(drawn.k.shape[0], drawn.k.shape[2], keys, keys).transpose(1, 2)
    p = oracle.attention(replace(drawn, v=eye)).out
    scaled = p * torch.exp(truth.lse - truth.row_maximum).nan_to_num(0.0).transpose(1, 2)[..., None]
    total = scaled.sum(-1, keepdim=True).clamp_min(1e-300)
    group = drawn.q.shape[2] // drawn.k.shape[2]
    values = drawn.v.double().repeat_interleave(group, 2)
    rounded = scaled.to(drawn.q.dtype).double()
    out = torch.einsum("bihj,bjhd->bihd", rounded, values) / total
    return out.to(drawn.q.dtype), truth.lse.float()


def verdict(case: Case, out: torch.Tensor, lse: torch.Tensor | None) -> Judgement:
    drawn = inputs.generate(case, 0, "cpu")
    truth = oracle.attention(drawn)
    plain = lowprecision.attention(drawn)
    return judge(out, lse, truth, thresholds=LIMITS, dtype=drawn.q.dtype, baseline=plain)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_rounding_p_and_the_output_passes(case: Case) -> None:
    """A kernel whose only errors are the two roundings of its type is PASS in every case."""
    found = verdict(case, *honest(inputs.generate(case, 0, "cpu")))
    assert found.status == PASS, found.reasons
    assert found.stats["max_z"] < 5
    assert found.stats["fa_ratio"] <= 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_one_percent_of_scale_does_not_pass(case: Case) -> None:
    """An output that is 1% too large is caught in every case, in bf16 too."""
    out, lse = honest(inputs.generate(case, 0, "cpu"))
    assert verdict(case, (out.float() * 1.01).to(out.dtype), lse).status != PASS


@pytest.mark.parametrize("case", [c for c in CASES if c.window != (-1, -1)], ids=lambda c: c.id)
@pytest.mark.parametrize("step", [1, -1])
def test_a_window_of_one_key_more_or_less_fails(case: Case, step: int) -> None:
    """A window that is off by one on the left fails."""
    left, right = case.window
    drawn = inputs.generate(case, 0, "cpu")
    assert verdict(case, *honest(drawn, window_size=(left + step, right))).status == FAIL


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.causal and c.seqlen_q < c.seqlen_k], ids=lambda c: c.id
)
def test_top_left_causal_fails(case: Case) -> None:
    """A causal mask aligned to the wrong corner fails wherever the two differ."""
    drawn = inputs.generate(case, 0, "cpu")
    square = slice(0, case.seqlen_q)
    cut = replace(drawn, k=drawn.k[:, square], v=drawn.v[:, square])
    assert verdict(case, *honest(cut)).status == FAIL


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.heads_k > 1 and c.heads > c.heads_k], ids=lambda c: c.id
)
def test_wrong_key_head_fails(case: Case) -> None:
    """Query heads that read h mod heads_k instead of h // group fail."""
    drawn = inputs.generate(case, 0, "cpu")
    group = case.heads // case.heads_k
    order = torch.arange(case.heads) % case.heads_k
    wrong = replace(drawn, k=drawn.k[:, :, order], v=drawn.v[:, :, order])
    assert group > 1
    assert verdict(case, *honest(wrong)).status == FAIL


@pytest.mark.parametrize("case", [c for c in CASES if c.softcap or c.alibi], ids=lambda c: c.id)
def test_an_ignored_argument_fails(case: Case) -> None:
    """A kernel that ignores softcap or ALiBi fails."""
    drawn = inputs.generate(case, 0, "cpu")
    assert verdict(case, *honest(drawn, softcap=0.0, alibi_slopes=None)).status == FAIL


def test_log_sum_exp_decides_alone() -> None:
    """A right output with no log-sum-exp, one in base 2, or one off by 1e-3 fails."""
    case = Case(128, 128)
    out, lse = honest(inputs.generate(case, 0, "cpu"))
    assert verdict(case, out, lse).status == PASS
    assert verdict(case, out, None).reasons == ("the log-sum-exp is missing",)
    assert verdict(case, out, lse / math.log(2)).status == FAIL
    assert verdict(case, out, lse + 1e-3).status == FAIL
    assert "shape" not in verdict(case, out, lse).stats


def test_rows_without_keys_are_held_to_their_convention() -> None:
    """Another log-sum-exp than the declared one, or an output that is not 0, fails."""
    case = Case(130, 2, causal=True)
    out, lse = honest(inputs.generate(case, 0, "cpu"))
    assert verdict(case, out, lse).status == PASS
    mixed = lse.clone()
    mixed[0, 0, 0] = 0.0
    assert "rows without keys" in verdict(case, out, mixed).reasons[0]
    spoiled = out.clone()
    spoiled[0, 0, 0, 0] = 1e-3
    assert verdict(case, spoiled, lse).status == FAIL


def test_one_nan_and_a_wrong_shape_or_type_fail() -> None:
    """A single NaN, a missing row and float32 output each fail with a reason that names it."""
    case = Case(128, 128)
    out, lse = honest(inputs.generate(case, 0, "cpu"))
    spoiled = out.clone()
    spoiled[1, 5, 1, 3] = torch.nan
    assert "1 of 32768 outputs are NaN" in verdict(case, spoiled, lse).reasons[0]
    assert "output is (2, 127, 2, 64)" in verdict(case, out[:, 1:], lse).reasons[0]
    assert "torch.float32" in verdict(case, out.float(), lse).reasons[0]


def test_a_target_that_nobody_calibrated_takes_the_most_careful_limits() -> None:
    """sm_120 takes the smallest of the known limits and says that it does."""
    found, known = thresholds.load("sm_120"), [thresholds.load(t) for t in ("cpu", "sm_90")]
    for name, limit in found.degraded.items():
        assert limit == min(entry.degraded[name] for entry in known)
    assert "sm_120 is not calibrated" in found.source
    assert "H200" in thresholds.load("sm_90").source


def test_a_dropout_factor_in_the_inputs_type_is_allowed_where_there_is_dropout() -> None:
    """1 / 0.83 rounded to bf16 makes all 0.14% smaller: too much without dropout, PASS with it."""
    case = Case(128, 3, heads=8)
    drawn = inputs.generate(case, 0, "cpu")
    truth = oracle.attention(drawn)
    shrunk = (truth.out * (1.203125 * 0.83)).bfloat16()
    said = [
        judge(
            shrunk, truth.lse.float(), truth, thresholds=LIMITS, dtype=shrunk.dtype, dropout=dropout
        ).status
        for dropout in (0.0, 0.17)
    ]
    assert said == ["DEGRADED", PASS]


def test_a_dropout_factor_may_be_that_of_a_probability_in_float32() -> None:
    """1 / (1 - 0.9) is 3.2 x 2^-24 less in float32, and 2 is 2 in every type."""
    assert factor_error(0.9, torch.float32) == pytest.approx(3.2 * 2.0**-24, rel=1e-6)
    assert factor_error(0.5, torch.bfloat16) == factor_error(0.0, torch.float16) == 0.0


def test_a_dropout_factor_beyond_the_range_of_a_type_allows_no_more() -> None:
    """1 / (1 - 0.99999) is infinite in fp16, and that is no kernel's rounding."""
    assert factor_error(0.99999, torch.float16) == factor_error(0.99999, torch.float32) < 0.002
    assert factor_error(1 - 2.0**-40, torch.bfloat16) == 0.0


@pytest.mark.parametrize("kernel", ["honest", "tails-flushed", "rounded-early"])
@pytest.mark.parametrize(
    "case",
    [
        Case(63, 63, 72, dropout=0.9, kind="large"),
        Case(33, 64, 16, heads=3, heads_k=3, batch=3, dropout=0.9, scale=0.5, kind="outlier"),
        Case(1765, 4, 8, heads=1, heads_k=1, dropout=0.17, kind="peaked"),
    ],
    ids=lambda case: case.id,
)
def test_what_dropout_multiplies_may_be_flushed_or_rounded_before(kernel: str, case: Case) -> None:
    """Without these terms torch's kernels reached a row RMS of 2.61 to 9.14 here, on a GPU."""
    found = examined(kernel, case)
    assert found.status == PASS, found.reasons
    assert found.stats["row_rms"] < 2


def test_float32_may_add_up_logits_one_product_after_the_other() -> None:
    """Torch's math kernel did so on a GPU, to a row RMS of 2.60 where this one reached 2.47."""
    case = Case(33, 129, 256, heads=3, heads_k=3, batch=9, dropout=0.9, dtype="fp32", kind="edge")
    drawn = inputs.generate(case, 2, "cpu")
    q, k, v = (x.double().transpose(1, 2) for x in (drawn.q, drawn.k, drawn.v))
    scores = torch.zeros(9, 3, 33, 129)
    for i in range(256):
        scores = (scores.double() + q[..., i, None] * k[..., None, :, i]).float()
    keep = torch.rand(scores.shape, generator=torch.Generator().manual_seed(2)) >= 0.9
    p = torch.softmax(scores * drawn.scale, -1) * keep * torch.tensor(10.0)
    out = (p.double() @ v).float().transpose(1, 2)
    truth = oracle.attention(drawn, keep)
    found = judge(
        out, None, truth, thresholds=LIMITS, dtype=out.dtype, needs_lse=False, dropout=0.9
    )
    assert found.status == PASS, found.reasons
    assert found.stats["row_rms"] < 2


@pytest.mark.parametrize(("kernel", "seed"), [("honest", 15), ("rounded-early", 21)])
def test_few_keys_that_dropout_leaves_may_scale_few_rows(kernel: str, seed: int) -> None:
    """Where one key is nearly all of a row, its rounding is that of the row: beta up to 0.84."""
    case = Case(3, 1059, 160, batch=1, causal=True, dropout=0.9, dtype="fp16", kind="peaked")
    found = examined(kernel, case, seed)
    assert found.status == PASS, found.reasons
    assert abs(found.stats["beta"]) > 0.7


def either_way(like: torch.Tensor) -> torch.Tensor:
    """Return 1 and -1 by chance, the same each time."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype)
    return torch.sign(drawn)


def test_one_row_of_which_one_key_is_all_may_be_off_as_far_as_any_row_may() -> None:
    """Its errors are one number: an RMS of 1.40, where many rows may have 1.3."""
    case = Case(*(1, 1059, 160), **ALONE, causal=True, dropout=0.9, dtype="fp16", kind="peaked")
    found = examined("rounded-early", case, 40)
    assert found.status == PASS, found.reasons
    assert found.stats["rms"] > 1.3


def test_one_row_of_many_keys_may_not() -> None:
    """There errors average: 1.6 of the noise in every number is too much for one row."""
    drawn = inputs.generate(Case(1, 1059, 160, **ALONE, kind="diffuse"), 0, "cpu")
    truth = oracle.attention(drawn)
    noise = sigma2(truth, drawn.q.dtype).sqrt()
    off = truth.out + 1.6 * noise * either_way(noise)
    found = judge(off.bfloat16(), truth.lse.float(), truth, thresholds=LIMITS, dtype=drawn.q.dtype)
    assert found.status == "DEGRADED"
    assert [finding.statistic for finding in found.findings] == ["rms"]


def test_a_row_whose_values_cancel_is_not_one_of_which_one_key_is_all() -> None:
    """Its errors are as many as its keys, though it is small beside each of them."""
    drawn = inputs.generate(Case(1, 64, 64, **ALONE, scale=0.0, kind="diffuse"), 0, "cpu")
    centred = drawn.v.double() - drawn.v.double().mean(1, keepdim=True)
    truth = oracle.attention(replace(drawn, v=centred.bfloat16()))
    noise = sigma2(truth, drawn.q.dtype).sqrt()
    off = truth.out + 1.6 * noise * either_way(noise)
    found = judge(off.bfloat16(), truth.lse.float(), truth, thresholds=LIMITS, dtype=drawn.q.dtype)
    assert "rms" in [finding.statistic for finding in found.findings]


def test_the_end_of_the_range_of_p_may_be_rounded_before_and_after_dropouts_factor() -> None:
    """Half a step each: of one P far below its sink a row RMS of 3.1 of 2.5, counted once."""
    most = 0.0
    for seed in range(40):
        drawn = inputs.generate(Case(1, 1, **ALONE, dtype="fp16", sinks=True), seed, "cpu")
        sink = torch.full_like(drawn.sinks, 15.0) if drawn.sinks is not None else None
        keep = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        drawn = replace(drawn, v=drawn.v * 64, sinks=sink, dropout=0.1)
        truth = oracle.attention(drawn, keep)
        p, factor = torch.exp(truth.row_maximum - truth.lse).half().double(), 1 / 0.9
        out = ((p * factor).half().double()[..., None] * drawn.v.double()).half()
        found = judge(
            *(out, truth.lse.float(), truth),
            thresholds=LIMITS,
            dtype=torch.float16,
            dropout=0.1,
        )
        assert found.status == PASS, found.reasons
        most = max(most, found.stats["row_rms"])
    assert most > 1.6


@pytest.mark.parametrize("seed", [8, 12, 18, 36])
def test_a_row_that_its_sink_leaves_little_of_may_be_scaled_by_what_steps_leave_of_p(
    seed: int,
) -> None:
    """In fp16 a P of a few steps of 2^-24 is off by up to half of one: beta in the thousands."""
    shape = {"head_dim_v": 192, "heads": 1, "heads_k": 1, "batch": 3}
    case = Case(
        *(1, 46, 136), **shape, alibi=True, sinks=True, dropout=0.9, dtype="fp16", kind="large"
    )
    found = examined("rounded-early", case, seed)
    assert found.status == PASS, found.reasons
    assert abs(found.stats["beta"]) > 15


def test_weights_that_their_type_cannot_tell_apart_are_off_alike() -> None:
    """A factor, P and their product are rounded, of all keys the same way: beta of 1.27."""
    case = Case(1, 257, 152, **ALONE, dropout=0.1, scale=1e-4, kind="diffuse")
    found = examined("rounded-early", case, 20)
    assert found.status == PASS, found.reasons
    assert found.stats["beta"] < -1.2
    assert found.stats["beta_share"] < 0.6


def test_an_output_that_is_all_flushed_to_zero_has_no_scale() -> None:
    """Dropout left keys of 10^-149: their square is in float64, and that of the noise is not."""
    drawn = inputs.generate(Case(1, 16, 8), 0, "cpu")
    truth = oracle.attention(drawn)
    small = replace(truth, out=truth.out * 1e-149, pv2=truth.pv2 * 1e-298, along=truth.along * 0)
    nothing = torch.zeros_like(truth.out, dtype=torch.bfloat16)
    found = judge(
        *(nothing, truth.lse.float(), replace(small, pav=truth.pav * 1e-149)),
        thresholds=LIMITS,
        dtype=torch.bfloat16,
    )
    assert found.status == PASS, found.reasons
    assert found.stats["beta"] == 0
