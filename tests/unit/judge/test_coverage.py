"""What evidence must have covered before it can speak for a cell."""

import judged
import pytest
from judged import candidate, cell, check

from pinproof.judge import coverage
from pinproof.judge.checks import Correctness
from pinproof.matrix.matrixfile import Policy

GRADIENTS = check("g", features=(*judged.EASY, "backward"), uses=("training", "everything"))


def gaps(*candidates, of=None, uses=("serving",)):
    found = Correctness.parse(judged.correctness(*candidates))
    return list(coverage.uses(of or cell(), found, Policy(uses=uses)))


def test_numbers_of_another_gpu_prove_nothing():
    elsewhere = {"correctness": {"device": {"capability": "sm_80"}}, "throughput": {}}
    assert list(coverage.devices(cell(target="sm_90"), elsewhere)) == [
        "correctness ran on sm_80, not on sm_90"
    ]
    unknown = {"correctness": {"device": None, "points": []}}
    (gap,) = coverage.devices(cell(target="sm_90"), unknown)
    assert "an unknown device" in gap


def test_a_pass_of_easy_checks_alone_is_no_proof():
    refused = check("b", "UNSUPPORTED")
    plain = candidate("kernel", check("a", features=("bf16",)), refused)
    assert gaps(plain) == [
        "no candidate passed all that serving needs; the best lacks causal, grouped heads"
    ]
    assert gaps(candidate("kernel", check("a"))) == []


def test_a_mask_of_any_shape_is_a_causal_one():
    shapes = ("bf16", "causal-rectangular", "gqa")
    assert gaps(candidate("kernel", check("a", features=shapes))) == []


def test_the_must_haves_may_be_spread_over_checks_but_not_over_candidates():
    checks = [check("a", features=("bf16", "causal")), check("b", features=("gqa",))]
    assert gaps(candidate("kernel", *checks)) == []
    assert gaps(candidate("one", checks[0]), candidate("other", checks[1]))


def test_a_pass_outside_the_asked_use_does_not_count():
    assert gaps(candidate("kernel", check("a", uses=("training", "everything"))))


def test_what_serves_must_be_of_what_the_cell_is_about():
    torch, vllm = candidate("torch-sdpa-flash", check("a")), candidate("vllm-fa2")
    assert gaps(torch, vllm) == []
    of = cell(target="sm_90", vllm="0.24.0")
    assert gaps(torch, vllm, of=of)


def test_a_serving_stack_must_have_passed_paged_keys():
    of = cell(target="sm_90", vllm="0.24.0")
    assert gaps(candidate("vllm-fa2", check("a")), of=of) == [
        "no candidate passed all that serving needs; the best lacks paged keys"
    ]
    paged = check("b", features=("bf16", "paged"))
    assert gaps(candidate("vllm-fa2", check("a"), paged), of=of) == []


@pytest.mark.parametrize("use", ["training", "everything"])
def test_training_is_not_proven_by_the_forward_pass(use):
    (gap,) = gaps(candidate("kernel", check("a")), uses=(use,))
    assert "the backward pass with causal" in gap
    assert gaps(candidate("kernel", check("a"), GRADIENTS), uses=(use,)) == []


def test_training_may_be_what_a_candidate_beside_the_stack_can_do():
    of = cell(target="sm_90", vllm="0.24.0")
    torch = candidate("torch-sdpa-flash", check("a"), GRADIENTS)
    assert gaps(torch, candidate("vllm-fa2", check("a")), of=of, uses=("training",)) == []


def test_each_asked_use_has_its_own_gap():
    (gap,) = gaps(candidate("kernel", check("a")), uses=("serving", "training"))
    assert "training" in gap
    assert len(gaps(candidate("kernel", check("a", "FAIL")), uses=("serving", "training"))) == 2
