"""The oracle is checked where the answer is known without attention."""

from __future__ import annotations

import pytest
import torch

from pinproof_cell.call import Call
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.oracle import lowprecision


def test_zero_logits_count_the_visible_keys() -> None:
    """With q = 0 the LSE is the log of the number of keys seen and O the mean of their V."""
    q, k = torch.zeros(1, 5, 1, 8), torch.zeros(1, 7, 1, 8)
    v = torch.arange(7.0).reshape(1, 7, 1, 1)
    truth = oracle.attention(Call(q=q, k=k, v=v, causal=True, window_size=(2, 0)))
    # Query i stands at key i + 2 and sees the three keys up to it.
    assert torch.allclose(truth.lse, torch.full((1, 1, 5), 3.0).double().log())
    assert torch.allclose(truth.out.flatten(), torch.arange(1.0, 6.0).double())


def test_rows_without_keys() -> None:
    """A row that sees nothing has output 0, LSE -inf and no variance."""
    q, k = torch.randn(1, 4, 1, 8), torch.randn(1, 2, 1, 8)
    truth = oracle.attention(Call(q=q, k=k, v=k, causal=True))
    assert truth.empty.flatten().tolist() == [True, True, False, False]
    assert not truth.out[:, :2].any()
    assert not truth.pv2[:, :2].any()
    assert not truth.tail[:, :2].any()


def test_chunks_change_nothing() -> None:
    """Rows in chunks of one give what all rows at once give."""
    q, k, v = (torch.randn(2, n, 2, 8) for n in (9, 11, 11))
    whole = oracle.attention(Call(q=q, k=k, v=v, causal=True))
    saved, oracle.CHUNK = oracle.CHUNK, 1
    try:
        parts = oracle.attention(Call(q=q, k=k, v=v, causal=True))
    finally:
        oracle.CHUNK = saved
    torch.testing.assert_close(whole.out, parts.out)
    torch.testing.assert_close(whole.tail, parts.tail)
    assert whole.largest_logit == pytest.approx(parts.largest_logit)


def test_along_is_how_far_rounded_p_move_a_row_in_its_own_direction() -> None:
    """P with uniform relative errors up to u scatter the product of the row with itself so."""
    q, k, v = (torch.randn(2, n, 2, 8, dtype=torch.float64) for n in (9, 11, 11))
    truth = oracle.attention(Call(q=q, k=k, v=v))
    p = torch.softmax(q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * 8**-0.5, -1)
    out, u = truth.out.transpose(1, 2), 2.0**-20
    shaken = p * (1 + u * (2 * torch.rand((4000, *p.shape), dtype=torch.float64) - 1))
    moved = ((shaken @ v.transpose(1, 2) - out) * out).sum(-1)
    torch.testing.assert_close(moved.var(0) / (u * u / 3), truth.along, rtol=0.15, atol=0)


def test_tail_along_is_how_far_p_in_whole_steps_moves_a_row_in_its_own_direction() -> None:
    """P in steps of one size, relative to the largest of its row, scatters that product so."""
    q, k, v = (torch.randn(2, n, 2, 8, dtype=torch.float64) for n in (9, 11, 11))
    truth = oracle.attention(Call(q=q, k=k, v=v))
    logits = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * 8**-0.5
    p = torch.softmax(logits, -1)
    out, step = truth.out.transpose(1, 2), 2.0**-20
    off = step * (torch.rand((4000, *p.shape), dtype=torch.float64) - 0.5)
    moved = (off * p.amax(-1, keepdim=True) @ v.transpose(1, 2) * out).sum(-1)
    torch.testing.assert_close(moved.var(0) / (step**2 / 12), truth.tail_along, rtol=0.15, atol=0)


def test_low_precision_is_close_to_the_oracle() -> None:
    """The baseline of flash-attn's rule is attention too, only worse."""
    q, k, v = (torch.randn(2, 20, 2, 16).bfloat16() for _ in range(3))
    slopes = torch.tensor([0.5, 0.25])
    arguments = {"causal": True, "window_size": (9, -1), "softcap": 3.0, "alibi_slopes": slopes}
    error = (
        lowprecision.attention(Call(q=q, k=k, v=v, **arguments))
        - oracle.attention(Call(q=q, k=k, v=v, **arguments)).out
    )
    assert 0 < float(error.abs().max()) < 0.05
