"""torch's own kernels: what the CPU's do, and that the calls of the CUDA ones fit their schemas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pinproof_cell import candidates
from pinproof_cell.call import Call
from pinproof_cell.candidates import torch_sdpa
from pinproof_cell.judge import backward as gradients
from pinproof_cell.judge import forward as judge
from pinproof_cell.judge import thresholds
from pinproof_cell.oracle import backward as backward_oracle
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.world import child

FLASH, MATH = candidates.get("torch-cpu-flash"), candidates.get("torch-sdpa-math")
LIMITS = thresholds.load("cpu")

CASES = (
    Case(65, 65, heads=4, causal=True),
    Case(40, 97, 80, heads=4, heads_k=1, causal=True, dtype="fp16"),
    Case(97, 60, window=(31, 7), dtype="fp16"),
    Case(70, 70, 111, causal=True, window=(33, 0)),
    Case(50, 90, 40, heads=4, alibi=True),
    Case(64, 96, causal=True, dtype="fp32"),
    Case(64, 64, memory="packed", causal=True),
    Case(64, 96, memory="transposed", causal=True),
    Case(64, 96, memory="expanded"),
    Case(1, 339, 128, heads=8),
    Case(7, 1),
)


def judged(candidate: Any, case: Case) -> tuple[judge.Judgement, judge.Judgement]:
    """Return what the judge says of the output and of the gradients."""
    call = inputs.generate(case, 0, "cpu")
    truth = oracle.attention(call)
    out, lse = candidate.forward(call)
    given = truth.lse.float() if lse is None else lse
    empty = candidate.lse_on_empty_rows
    forward = judge.judge(out, given, truth, thresholds=LIMITS, dtype=call.q.dtype, empty_lse=empty)
    dout = inputs.output_gradient(case, 0, "cpu")
    wanted = backward_oracle.backward(dout, call)
    found = candidate.backward(dout, call, out, lse)
    return forward, gradients.judge(*found, wanted, thresholds=LIMITS, dtype=call.q.dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.parametrize("candidate", [FLASH, MATH], ids=lambda candidate: candidate.name)
def test_what_the_cpu_kernels_admit_they_compute(candidate: Any, case: Case) -> None:
    """Output, LSE and gradients pass, by the flash kernel and by the math path."""
    assert case.features <= candidate.supports
    assert [found.status for found in judged(candidate, case)] == ["PASS", "PASS"]


def test_the_math_path_takes_another_head_dimension_of_v_and_rows_without_keys() -> None:
    """It hands no LSE out, and gives 0 for a row that sees nothing."""
    forward, backward = judged(MATH, Case(40, 20, 32, head_dim_v=48, causal=True))
    assert (forward.status, backward.status) == ("PASS", "PASS")
    call = inputs.generate(Case(3, 0), 0, "cpu")
    out, lse = MATH.forward(call)
    assert lse is None
    assert not out.any()
    assert MATH.forward(inputs.generate(Case(0, 3), 0, "cpu"))[0].shape == (2, 0, 2, 64)


def test_the_math_path_draws_the_same_dropout_from_the_same_seed() -> None:
    """The mask of the backward is that of the forward, where both are seeded alike."""
    call = inputs.generate(Case(8, 16, 16, dropout=0.5, dtype="fp32"), 0, "cpu")
    eye = torch.eye(16)[None, :, None].expand(call.v.shape)
    call = Call(q=call.q, k=call.k, v=eye, dropout=0.5)
    torch.manual_seed(3)
    p, _ = MATH.forward(call)
    assert 0.3 < float((p == 0).double().mean()) < 0.7
    torch.manual_seed(3)
    dout = torch.randn(p.shape, generator=torch.Generator().manual_seed(4))
    _, _, dv = MATH.backward(dout, call, p, None)
    torch.testing.assert_close(dv, torch.einsum("bqhk,bqhd->bkhd", p, dout))


def test_a_last_stride_that_is_not_one_goes_through_as_it_is() -> None:
    """torch 2.13 reads such heads as if they were dense: the defect shows."""
    call = inputs.generate(Case(64, 96, memory="last-stride"), 0, "cpu")
    out, _ = FLASH.forward(call)
    assert call.q.stride(-1) == 2
    assert bool(out.isnan().any())


def test_rows_without_keys_get_the_log_sum_exp_that_the_kernel_writes() -> None:
    """torch 2.13 writes 0, and nothing is made of it."""
    _, lse = FLASH.forward(inputs.generate(Case(8, 3, causal=True), 0, "cpu"))
    assert lse is not None
    assert lse[:, :, :5].unique().tolist() == [FLASH.lse_on_empty_rows] == [0.0]


def test_no_keys_reach_the_kernel_even_though_it_dies_of_them() -> None:
    """torch 2.13 divides by zero, and only a child process sees it."""
    code = """
from pinproof_cell import candidates
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
candidates.get("torch-cpu-flash").forward(inputs.generate(Case(128, 0), 0, "cpu"))
"""
    assert child.run(["-c", code], target="cpu", timeout=120).signal == "SIGFPE"


def test_gradients_of_large_groups_are_degraded() -> None:
    """The kernel adds the heads of a group up in the input type."""
    _, backward = judged(FLASH, Case(128, 128, heads=16, heads_k=1, causal=True))
    assert backward.status == "DEGRADED"


KINDS = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window_size": (9, 0)},
    "dropout": {"dropout": 0.25, "softmax_scale": 0.3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "candidate",
    [torch_sdpa.FLASH, torch_sdpa.CUDNN, torch_sdpa.EFFICIENT],
    ids=lambda candidate: candidate.name,
)
def test_cuda_operators_take_the_arguments_they_get(
    candidate: torch_sdpa.TorchSdpa, kind: str
) -> None:
    """On tensors without memory torch checks its schemas, forward and backward, and the shapes."""
    if kind == "window" and "window" not in candidate.supports:
        return
    q = torch.empty(2, 30, 4, 64, dtype=torch.bfloat16, device="meta", requires_grad=True)
    k, v = (
        torch.empty(2, 50, 4, 64, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for _ in range(2)
    )
    call = Call(q=q, k=k, v=v, **KINDS[kind])
    out, lse = candidate.operate(call, *candidate.arguments(call))
    assert out.shape == q.shape
    assert lse.shape == (2, 4, 30)
    found = torch.autograd.grad(out, (q, k, v), torch.empty_like(out))
    assert [x.shape for x in found] == [q.shape, k.shape, k.shape]


def test_a_call_that_torch_would_not_give_to_a_kernel_is_refused() -> None:
    """What torch's dispatcher answers decides, and here it has no GPU."""
    call = inputs.generate(Case(8, 8), 0, "cpu")
    with pytest.raises(NotImplementedError, match="torch-sdpa-flash does not take it, says torch"):
        torch_sdpa.FLASH.forward(call)


@pytest.mark.parametrize("candidate", [torch_sdpa.CUDNN, torch_sdpa.EFFICIENT])
def test_a_bias_that_hides_all_keys_of_a_query_is_refused(candidate: Any) -> None:
    """No kernel of torch that takes a bias says what it does with such a row."""
    call = inputs.generate(Case(9, 4, window=(3, 1), dtype="fp16"), 0, "cpu")
    with pytest.raises(NotImplementedError, match="does not take empty-rows"):
        candidate.forward(call)


def test_heads_of_an_odd_size_are_padded_for_the_flash_kernel_only() -> None:
    """The scale stays that of the size before."""
    q = torch.empty(1, 8, 2, 111, dtype=torch.bfloat16, device="meta")
    call = Call(q=q, k=q, v=q, causal=True)
    assert torch_sdpa.FLASH.arguments(call)[0].shape[-1] == 112
    assert torch_sdpa.FLASH.operate(call, *torch_sdpa.FLASH.arguments(call))[0].shape == q.shape
    assert "unaligned-head" not in torch_sdpa.CUDNN.supports | torch_sdpa.EFFICIENT.supports
