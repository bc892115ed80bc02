"""The reference's gradients agree with the oracle, and come out the same bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import SOME
from hypothesis import given, settings
from random_cases import cases, keep_for

from pinproof_cell.call import Call
from pinproof_cell.judge import thresholds
from pinproof_cell.judge.backward import judge
from pinproof_cell.judge.forward import PASS
from pinproof_cell.kernels import reference
from pinproof_cell.kernels.launch import INTERPRETED
from pinproof_cell.oracle import backward as oracle_backward
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case

DEVICE = "cuda" if not INTERPRETED else "cpu"


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_gradients_are_judged_pass(case: Case) -> None:
    """REF is PASS, with less than half of what a kernel may be off by."""
    drawn, dout = inputs.generate(case, 0, DEVICE), inputs.output_gradient(case, 0, DEVICE)
    out, lse = reference.attention(drawn.q, drawn.k, drawn.v, **drawn.keywords())
    found = reference.backward(dout, drawn.q, drawn.k, drawn.v, out, lse, **drawn.keywords())
    truth = oracle_backward.backward(dout, drawn)
    said = judge(*found, truth, thresholds=thresholds.load("cpu"), dtype=drawn.q.dtype)
    assert said.status == PASS, said.reasons
    assert max(value for name, value in said.stats.items() if name.endswith("max_z")) < 4


def draw(q: tuple[int, ...], k: tuple[int, ...], dv: int | None = None) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    shapes = [(*q[:3], dv or q[3]), q, k, (*k[:3], dv or k[3])]
    return [torch.randn(shape, generator=source).to(DEVICE) for shape in shapes]


def assert_agrees(
    dout: torch.Tensor, *qkv: torch.Tensor, keep: torch.Tensor | None = None, **arguments: Any
) -> None:
    out, lse = reference.attention(*qkv, keep=keep, **arguments)
    found = reference.backward(dout, *qkv, out, lse, keep=keep, **arguments)
    truth = oracle_backward.backward(dout, Call(q=qkv[0], k=qkv[1], v=qkv[2], **arguments), keep)
    for gradient, wanted, leaf in zip(found, (truth.dq, truth.dk, truth.dv), qkv, strict=True):
        assert gradient.shape == leaf.shape
        value = wanted.value.reshape(leaf.shape)
        torch.testing.assert_close(gradient.double(), value, rtol=2e-4, atol=2e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases(backward=True))
def test_every_mask_and_feature_together(case: Case) -> None:
    """Whatever a dense or packed call asks for at once, its gradients are the oracle's."""
    call, dout = inputs.generate(case, 0, DEVICE), inputs.output_gradient(case, 0, DEVICE)
    assert_agrees(dout, call.q, call.k, call.v, keep=keep_for(call), **call.keywords())


@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(1, 1), (129, 257), (300, 40), (40, 300)])
@pytest.mark.parametrize("window", [(-1, -1), (0, 5), (5, -1), (127, 0), (10**9, 10**9)])
def test_masks_of_every_kind_in_float32(
    seqlen_q: int, seqlen_k: int, window: tuple[int, int]
) -> None:
    """Every window and the causal mask, on either side of a tile's edge, are the oracle's."""
    tensors = draw((1, seqlen_q, 2, 16), (1, seqlen_k, 1, 16))
    for causal in (False, True):
        assert_agrees(*tensors, causal=causal, window_size=window)


@pytest.mark.parametrize("head_dim", [16, 40, 111, 256])
def test_head_dimensions_that_are_no_power_of_two(head_dim: int) -> None:
    """Any head dimension up to 256 agrees, and one of V that differs from it."""
    assert_agrees(*draw((1, 33, 2, head_dim), (1, 70, 2, head_dim), dv=24), causal=True)


def test_softcap_alibi_window_and_scale_together() -> None:
    """Softcap comes before ALiBi and is differentiated; slopes are per batch and head."""
    dout, q, k, v = draw((2, 50, 4, 32), (2, 90, 2, 32))
    slopes = torch.rand(2, 4, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    assert_agrees(
        dout, q * 2, k, v, softmax_scale=0.5, causal=True, window_size=(40, -1), softcap=5.0,
        alibi_slopes=slopes,
    )  # fmt: skip


def test_any_strides() -> None:
    """Transposed, sliced and expanded views are read where they stand, dO too."""
    dout, q, k, v = draw((2, 64, 2, 32), (2, 64, 2, 32))
    assert_agrees(
        dout.transpose(1, 3).contiguous().transpose(1, 3), q.transpose(1, 2).contiguous()
        .transpose(1, 2), k[:, ::2], v[:, ::2],
    )  # fmt: skip
    assert_agrees(dout[:, :1].expand(-1, 64, -1, -1), q, k[:1].expand(2, -1, -1, -1), v[:, :1]
                  .expand(-1, 64, -1, -1))  # fmt: skip


def test_the_same_bits_every_time() -> None:
    """Two runs agree in every bit, also where several heads add to one key."""
    dout, q, k, v = (x.bfloat16() for x in draw((1, 150, 8, 32), (1, 150, 1, 32)))
    out, lse = reference.attention(q, k, v)
    first, second = (reference.backward(dout, q, k, v, out, lse) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_very_negative_log_sum_exp_and_a_tail() -> None:
    """Keys beyond the sequence do not overflow where the log-sum-exp is far below -88."""
    dout, q, k, v = draw((1, 65, 1, 16), (1, 65, 1, 16))
    q[..., 0], k[..., 0] = 30.0, -30.0
    out, lse = reference.attention(q, k, v, softmax_scale=1.0)
    assert float(lse.max()) < -800
    for gradient in reference.backward(dout, q, k, v, out, lse, softmax_scale=1.0):
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("convention", [-torch.inf, torch.inf, 0.0])
def test_rows_without_keys_give_zero_whatever_their_log_sum_exp(convention: float) -> None:
    """-inf, +inf and 0 as the log-sum-exp of a row without keys all lead to gradient 0."""
    dout, q, k, v = draw((1, 20, 2, 16), (1, 5, 2, 16))
    out, lse = reference.attention(q, k, v, causal=True)
    truth = oracle_backward.backward(dout, Call(q=q, k=k, v=v, causal=True))
    lse = lse.masked_fill(lse.isinf(), convention)
    dq, dk, dv = reference.backward(dout, q, k, v, out, lse, causal=True)
    assert not dq[:, :15].any()
    torch.testing.assert_close(dk.double(), truth.dk.value, rtol=2e-4, atol=2e-5)
    torch.testing.assert_close(dv.double(), truth.dv.value, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("seqlen_q", "seqlen_k"), [(0, 5), (5, 0), (0, 0)])
def test_no_queries_or_no_keys_give_zero(seqlen_q: int, seqlen_k: int) -> None:
    """Without queries or keys every gradient is 0 and of its input's shape."""
    dout, q, k, v = draw((2, seqlen_q, 2, 16), (2, seqlen_k, 2, 16))
    out, lse = reference.attention(q, k, v)
    found = reference.backward(dout, q, k, v, out, lse)
    for gradient, leaf in zip(found, (q, k, v), strict=True):
        assert gradient.shape == leaf.shape
        assert not gradient.any()


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Another length of dO, a wrong log-sum-exp and a negative scale raise ValueError."""
    dout, q, k, v = draw((1, 8, 2, 16), (1, 8, 2, 16))
    out, lse = reference.attention(q, k, v)
    with pytest.raises(ValueError, match="dout"):
        reference.backward(dout[:, 1:], q, k, v, out, lse)
    with pytest.raises(ValueError, match="lse"):
        reference.backward(dout, q, k, v, out, lse[:, :1])
    with pytest.raises(ValueError, match="positive"):
        reference.backward(dout, q, k, v, out, lse, softmax_scale=-1.0)
