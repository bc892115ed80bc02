"""The error of logits: sums of float32, added up one by one, are off by what the oracle says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pinproof_cell.judge import thresholds
from pinproof_cell.judge.forward import judge
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case


@pytest.mark.parametrize("kind", ["diffuse", "large", "outlier", "shifted", "edge", "sunken"])
@pytest.mark.parametrize("head_dim", [8, 64, 256])
def test_sums_of_float32_are_off_by_less_than_the_model_and_not_by_much_less(
    kind: str, head_dim: int
) -> None:
    case = Case(64, 64, head_dim, kind=kind, dtype="fp32")
    call = inputs.generate(case, 0, "cpu")
    total = torch.zeros(2, 2, 64, 64)
    for q, k in zip(call.q.float().unbind(-1), call.k.float().unbind(-1), strict=True):
        # One product after the other: the order with the largest error.
        total += q.transpose(1, 2)[..., None] * k.transpose(1, 2)[..., None, :]
    exact = torch.einsum("bqhd,bkhd->bhqk", call.q.double(), call.k.double())
    rms = float((total.double() - exact).square().mean().sqrt()) * call.scale * 2**24
    modelled = oracle.attention(call).logit_error
    assert 0.02 * modelled < rms < modelled


def test_a_logit_that_softcap_makes_small_keeps_the_error_of_its_product() -> None:
    case = Case(32, 32, kind="large")
    plain = oracle.attention(inputs.generate(case, 0, "cpu"))
    capped = oracle.attention(inputs.generate(Case(32, 32, kind="large", softcap=0.5), 0, "cpu"))
    assert capped.largest_logit <= 0.5
    assert capped.logit_error > 0.3 * plain.logit_error


def test_a_call_without_keys_has_no_error() -> None:
    assert oracle.attention(inputs.generate(Case(4, 0), 0, "cpu")).logit_error == 0


def test_equal_weights_are_one_level_fewer_and_different_ones_are_many() -> None:
    call = inputs.generate(Case(8, 64), 0, "cpu")
    equal = replace(call, q=torch.zeros_like(call.q))
    assert oracle.attention(equal).levels == 0
    assert oracle.attention(call).levels > 500


def test_weights_within_a_few_steps_of_their_type_count_by_steps_and_others_do_not() -> None:
    """bf16 cannot tell logits apart that all lie within 0.01; 0.1 are more steps than eight."""
    call = inputs.generate(Case(8, 64), 0, "cpu")
    spread = float((call.q.double() * call.scale).norm(dim=-1).max()) * float(
        call.k.double().norm(dim=-1).max()
    )
    found = {
        width: oracle.attention(replace(call, softmax_scale=call.scale * width / spread)).levels
        for width in (0.01, 0.1)
    }
    assert 0 < found[0.01] <= 8
    assert found[0.1] > 100


def test_a_scale_error_is_not_hidden_where_few_weights_differ() -> None:
    case = Case(31, 31, 31, scale=1e-4, memory="expanded", dtype="fp16", kind="shifted")
    call = inputs.generate(case, 0, "cpu")
    truth = oracle.attention(call)
    assert 0 < truth.levels < 200
    verdicts = {
        factor: judge(
            (truth.out * factor).to(call.q.dtype),
            truth.lse.float(),
            truth,
            thresholds=thresholds.load("cpu"),
            dtype=call.q.dtype,
        ).status
        for factor in (1.0, 1.002)
    }
    assert verdicts == {1.0: "PASS", 1.002: "DEGRADED"}
