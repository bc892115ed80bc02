"""The Triton reference agrees with the oracle where the suite's cases do not look."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_cases import cases, keep_for
from torch.testing import assert_close as close

from pinproof_cell.call import Call
from pinproof_cell.kernels import reference, tiles
from pinproof_cell.kernels.launch import INTERPRETED
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case

DEVICE = "cuda" if not INTERPRETED else "cpu"


def draw(q: tuple[int, ...], k: tuple[int, ...], dv: int | None = None) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    v = (*k[:3], dv or k[3])
    return [torch.randn(shape, generator=source).to(DEVICE) for shape in (q, k, v)]


def assert_agrees(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    keep: torch.Tensor | None = None,
    mode: str = "ref",
    **arguments: Any,
) -> None:
    out, lse = reference.attention(q, k, v, keep=keep, mode=mode, **arguments)
    truth = oracle.attention(Call(q=q, k=k, v=v, **arguments), keep)
    close(out.double(), truth.out.reshape(out.shape), rtol=1e-4, atol=1e-5)
    close(lse.double(), truth.lse.reshape(lse.shape), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases(), mode=st.sampled_from(("ref", "fast")))
def test_every_layout_mask_and_feature_together(case: Case, mode: str) -> None:
    """Whatever a call asks for at once is the oracle's; what is not its own may be NaN."""
    call = inputs.generate(case, 0, DEVICE, beyond=torch.nan)
    arguments = call.keywords()
    assert_agrees(call.q, call.k, call.v, keep=keep_for(call), mode=mode, **arguments)


@pytest.mark.parametrize(
    ("seqlen_q", "seqlen_k"), [(1, 1), (129, 128), (128, 257), (300, 40), (40, 300), (7, 0)]
)
@pytest.mark.parametrize("causal", [False, True])
def test_masks_of_every_kind_in_float32(seqlen_q: int, seqlen_k: int, causal: bool) -> None:
    """Every window, on either side of a tile's edge, is that of the oracle."""
    q, k, v = draw((1, seqlen_q, 2, 16), (1, seqlen_k, 1, 16))
    for window in itertools.product((-1, 0, 127), (-1, 5, 10**9)):
        assert_agrees(q, k, v, causal=causal, window_size=window)


@pytest.mark.parametrize("head_dim", [16, 40, 111, 160, 256])
def test_head_dimensions_that_are_no_power_of_two(head_dim: int) -> None:
    """Any head dimension up to 256 agrees, and one of V that differs from it."""
    q, k, v = draw((1, 33, 2, head_dim), (1, 70, 2, head_dim), dv=24)
    assert_agrees(q, k, v, causal=True)


def test_softcap_alibi_window_and_scale_together() -> None:
    """Softcap comes before ALiBi; slopes are per batch and head."""
    q, k, v = draw((2, 50, 4, 32), (2, 90, 2, 32))
    slopes = torch.rand(2, 4, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    assert_agrees(
        q * 8, k, v, softmax_scale=0.5, causal=True, window_size=(40, -1), softcap=5.0,
        alibi_slopes=slopes,
    )  # fmt: skip
    assert_agrees(q, k, v, alibi_slopes=slopes[0])


def test_any_strides() -> None:
    """Transposed, sliced and expanded views are read where they stand."""
    q, k, v = draw((2, 64, 2, 32), (2, 64, 2, 32))
    assert_agrees(q.transpose(1, 2).contiguous().transpose(1, 2), k, v)
    assert_agrees(q.transpose(1, 3).contiguous().transpose(1, 3), k[:, ::2], v[:, ::2])
    assert_agrees(q, k[:1].expand(2, -1, -1, -1), v[:, :1].expand(-1, 64, -1, -1))


def test_shapes_that_do_not_fit_are_refused() -> None:
    """Heads that do not divide, other lengths of K and V, and a negative scale raise ValueError."""
    q, k, v = draw((1, 8, 3, 16), (1, 8, 2, 16))
    with pytest.raises(ValueError, match="shapes"):
        reference.attention(q, k, v)
    with pytest.raises(ValueError, match="shapes"):
        reference.attention(q[:, :, :2], k, v[:, 1:].expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="positive"):
        reference.attention(q[:, :, :2], k, v, softmax_scale=-1.0)


def test_no_queries_is_an_empty_answer() -> None:
    """Without queries nothing is launched and the shapes are right."""
    q, k, v = draw((2, 0, 2, 16), (2, 5, 2, 16))
    out, lse = reference.attention(q, k, v)
    assert out.shape == (2, 0, 2, 16)
    assert lse.shape == (2, 2, 0)


def test_tiles_are_powers_of_two_that_hold_the_head() -> None:
    """`padded` is the next power of two from 16 on."""
    assert [tiles.padded(d) for d in (1, 16, 17, 80, 128, 129, 256)] == [
        *(16, 16, 32, 128, 128, 256, 256)
    ]
