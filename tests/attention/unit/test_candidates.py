"""What every candidate says of itself and refuses, and the layouts that a call is brought to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pinproof_cell import candidates
from pinproof_cell.call import Call
from pinproof_cell.candidates import packing, refusal
from pinproof_cell.candidates.bias import bias, has_empty_rows, needs_bias
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.world import child

NAMES = (
    *("triton-ref", "triton-fast", "torch-cpu-flash", "torch-sdpa-math", "torch-sdpa-flash"),
    *("torch-sdpa-cudnn", "torch-sdpa-efficient", "flash-attn-2", "flash-attn-2-deterministic"),
    *("flash-attn-4", "vllm-fa2", "vllm-fa3", "vllm-triton", "flashinfer"),
)


def dense(batch: int, queries: int, keys: int, **rest: object) -> Call:
    source = torch.Generator().manual_seed(queries * 100 + keys)
    q, k, v = (
        torch.randn(batch, length, 2, 16, generator=source) for length in (queries, keys, keys)
    )
    return Call(q=q, k=k, v=v, **rest)


@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_has_a_name_and_admits_known_features_only(name: str) -> None:
    """A candidate is found by its name, and `supports` says nothing that no case can ask."""
    found = candidates.get(name)
    assert found.name == name
    assert found.supports <= FEATURES
    assert found.supports & {"fp16", "bf16", "fp32"}


def test_candidates_are_listed_without_importing_torch() -> None:
    """Whoever supervises them must not go down with what they import."""
    code = """
import sys
from pinproof_cell import candidates
found = candidates.find({"flash-attn": "2.8.3", "vllm": "0.33.0"}, "cuda")
assert len(found) >= 7
assert not {"torch", "triton", "vllm"} & set(sys.modules)
"""
    ended = child.run(["-c", code], target="cpu", timeout=60)
    assert ended.returncode == 0, ended.output


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    """The error lists what there is."""
    with pytest.raises(ValueError, match="torch-sdpa-efficient, flash-attn-2"):
        candidates.get("flash")


def test_what_a_call_uses_is_refused_by_name() -> None:
    """Each field of a call that a candidate does not admit is in the refusal."""
    call = dense(1, 4, 6, softcap=3.0, splits=2, dropout=0.5, sinks=torch.zeros(2))
    with pytest.raises(NotImplementedError, match="does not take dropout, sinks, softcap, splits"):
        candidates.get("torch-cpu-flash").forward(call)
    with pytest.raises(NotImplementedError, match="torch-sdpa-math does not take sinks"):
        candidates.get("torch-sdpa-math").forward(dense(1, 4, 6, sinks=torch.zeros(2)))


@pytest.mark.parametrize("layout", ["varlen", "paged", "left-padded"])
def test_ragged_calls_are_refused_where_there_are_only_dense_ones(layout: str) -> None:
    """A kernel of dense batches never sees a layout."""
    case = Case(0, 0, layout=layout, page=16 * (layout == "paged"), lengths=((3, 9), (2, 4)))
    call = inputs.generate(case, 0, "cpu")
    with pytest.raises(
        NotImplementedError, match=layout.removesuffix("ed").replace("pag", "paged")
    ):
        candidates.get("torch-cpu-flash").forward(call)


@pytest.mark.parametrize(
    "case",
    [
        Case(7, 9, 20, heads=4, window=(3, 2), softcap=2.0, alibi=True, dtype="fp32"),
        Case(7, 9, 160, head_dim_v=64, sinks=True, dropout=0.5, splits=2, dtype="fp16"),
        Case(7, 4, window=(-1, 1), dtype="fp16"),
        Case(7, 1),
        Case(7, 0),
        Case(0, 7),
        Case(0, 0, layout="paged", page=4, lengths=((3, 9), (2, 4))),
        Case(0, 0, layout="left-padded", lengths=((3, 9), (2, 4))),
        Case(0, 0, layout="varlen", lengths=((3, 9), (2, 4))),
    ],
)
def test_a_call_shows_the_features_of_its_case(case: Case) -> None:
    """What the case asks for is seen again in the call, but for what only numbers tell."""
    by_number = {"causal", "causal-rectangular", "backward", "empty-sequences"}
    by_number |= {"strided", "expanded", "strided-head", "far"}
    by_number |= {"page-16", "page-64", "page-256"}
    assert refusal.asked(inputs.generate(case, 0, "cpu")) == case.features - by_number


@settings(deadline=None, max_examples=60)
@given(
    queries=st.integers(1, 12),
    keys=st.integers(0, 12),
    left=st.integers(-1, 12),
    right=st.integers(-1, 12),
    causal=st.booleans(),
)
def test_the_bias_hides_what_the_mask_hides(
    queries: int, keys: int, left: int, right: int, causal: bool
) -> None:
    """Attention under the bias is attention under the mask; its empty rows are told beforehand."""
    call = dense(1, queries, keys, causal=causal, window_size=(left, right))
    truth = oracle.attention(call)
    assert has_empty_rows(call) == bool(truth.empty.any())
    plain = replace(call, causal=False, window_size=(-1, -1))
    if not needs_bias(call):
        plain = replace(plain, causal=causal)
        torch.testing.assert_close(oracle.attention(plain).lse, truth.lse)
        return
    mask = bias(call, torch.float64, multiple=8)
    assert mask.stride(2) % 8 == 0 or not keys
    scores = (call.q.double().transpose(1, 2) @ call.k.double().permute(0, 2, 3, 1)) * call.scale
    torch.testing.assert_close(torch.logsumexp(scores + mask, -1), truth.lse)


lengths = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(pairs=lengths, page=st.sampled_from([1, 4, 16]))
def test_keys_in_pages_are_the_same_keys(pairs: list[tuple[int, int]], page: int) -> None:
    """A packed batch put into pages gives the same answer, whatever its lengths are."""
    case = Case(0, 0, layout="varlen", lengths=tuple(pairs), causal=True, dtype="fp32")
    call = inputs.generate(case, 0, "cpu")
    other, layout = packing.paged(call, page)
    assert layout.starts_k is None
    assert layout.block_table is not None
    torch.testing.assert_close(oracle.attention(other).out, oracle.attention(call).out)


@pytest.mark.parametrize("keys", [0, 5, 16, 32, 40])
def test_a_dense_batch_packed_or_in_pages_is_the_same_batch(keys: int) -> None:
    """Out and LSE come back in the shape of the dense call; whole pages are not copied."""
    call = dense(3, 6, keys, causal=True)
    truth = oracle.attention(call)
    for batch, layout in (packing.packed(call), packing.paged(call, 16)):
        assert layout.batch == 3
        found = oracle.attention(batch)
        torch.testing.assert_close(packing.unpacked(found.out[0], call), truth.out)
        torch.testing.assert_close(packing.unpacked_lse(found.lse[0], call), truth.lse)
    copied = packing.paged(call, 16)[0].k.data_ptr() != call.k.data_ptr()
    assert copied == (keys % 16 > 0)


def test_sinks_that_bfloat16_would_round_are_refused() -> None:
    """Half a unit more than bfloat16 holds is an error of the input, not of the kernel."""
    fa3 = candidates.get("vllm-fa3")
    exact = refusal.bfloat16_sinks(fa3, dense(1, 2, 2, sinks=torch.tensor([0.5, -3.0])))
    assert exact is not None
    assert exact.dtype == torch.bfloat16
    with pytest.raises(NotImplementedError, match="vllm-fa3 takes sinks in bfloat16 only"):
        refusal.bfloat16_sinks(fa3, dense(1, 2, 2, sinks=torch.tensor([0.5, 1 + 2.0**-9])))


def test_an_assertion_of_support_is_a_refusal_and_any_other_is_not() -> None:
    """Some kernels say by an assertion what they do not have."""
    candidate = candidates.get("flash-attn-4")
    with (
        pytest.raises(NotImplementedError, match="flash-attn-4: SplitKV not supported"),
        refusal.asserting(candidate),
    ):
        raise AssertionError("SplitKV not supported on SM 9.0")
    with pytest.raises(AssertionError), refusal.asserting(candidate):
        raise AssertionError("q must be contiguous")
