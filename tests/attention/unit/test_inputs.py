"""A ragged call holds, wherever its keys lie, what its sequences hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import KINDS, MEMORY, Case

LENGTHS = ((5, 33), (0, 7), (17, 17), (3, 0), (1, 64))
VARLEN = Case(17, 64, 32, heads=4, causal=True, layout="varlen", lengths=LENGTHS, alibi=True)
LAYOUTS = (
    VARLEN,
    replace(VARLEN, layout="paged", page=16),
    replace(VARLEN, layout="paged", page=4),
    replace(VARLEN, layout="left-padded"),
)


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda case: case.id)
def test_every_layout_finds_the_keys_of_its_sequences(case: Case) -> None:
    """Sequences read back through the layout have the case's lengths, and no key is poison."""
    call = inputs.generate(case, 0, "cpu", beyond=torch.nan)
    found = list(call.sequences())
    assert [(x.q.shape[1], x.k.shape[1]) for x in found] == list(LENGTHS)
    for sequence in found:
        assert not sequence.k.isnan().any()
        assert not sequence.v.isnan().any()


def test_the_oracle_of_a_ragged_call_is_that_of_its_sequences() -> None:
    """Rows stand one after the other, with slopes of their own sequence."""
    call = inputs.generate(VARLEN, 0, "cpu")
    whole = oracle.attention(call)
    parts = [oracle.attention(sequence) for sequence in call.sequences()]
    assert torch.equal(whole.out, torch.cat([part.out for part in parts], 1))
    assert torch.equal(whole.lse, torch.cat([part.lse for part in parts], 2))
    assert whole.lse.shape == (1, 4, 26)


@pytest.mark.parametrize("memory", MEMORY)
def test_strides_hold_the_same_values(memory: str) -> None:
    """Every way to lie in memory but the broadcast one holds the plain values."""
    case = Case(24, 24, 16, memory=memory)
    call = inputs.generate(case, 0, "cpu")
    assert call.q.shape == (2, 24, 2, 16)
    assert not call.k.isnan().any()
    if memory == "expanded":
        assert call.k.stride()[0] == call.k.stride()[2] == 0
    if memory == "far":
        assert call.k.stride(0) > 2**31
    if memory == "last-stride":
        assert call.v.stride(-1) == 2


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda case: case.id)
def test_heads_lie_outside_of_packed_rows_and_pages_too(case: Case) -> None:
    """A strided ragged call has the rows of a head beside each other, and so has its gradient."""
    call = inputs.generate(replace(case, memory="transposed"), 0, "cpu")
    dout = inputs.output_gradient(replace(case, memory="transposed", backward=True), 0, "cpu")
    for x in (call.q, call.k, call.v, dout):
        assert x.stride(-1) == 1
        assert x.stride(-3) == x.shape[-1]
        assert not x.is_contiguous()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_every_kind_is_finite_and_what_its_name_says(kind: str, dtype: str) -> None:
    """Shifted logits lie near -120, those at the edge near the largest fp16."""
    call = inputs.generate(Case(16, 40, kind=kind, dtype=dtype), 0, "cpu")
    truth = oracle.attention(call)
    assert torch.isfinite(truth.out).all()
    if kind == "shifted":
        assert truth.lse.max() < -88.7
    if kind == "edge":
        assert 2e4 < truth.largest_logit < 65504


def test_sinks_take_their_share_and_dropout_scales_what_is_left() -> None:
    """A sink of -inf changes nothing; dropping nothing at p = 0.5 doubles the output."""
    call = inputs.generate(Case(9, 30, 16, sinks=True), 0, "cpu")
    assert torch.equal(call.sinks.bfloat16().float(), call.sinks)
    plain = oracle.attention(replace(call, sinks=None))
    gone = oracle.attention(replace(call, sinks=torch.full((2,), -torch.inf)))
    torch.testing.assert_close(gone.out, plain.out)
    shared = oracle.attention(call)
    share = torch.exp(plain.lse - shared.lse).transpose(1, 2)[..., None]
    torch.testing.assert_close(shared.out, plain.out * share)
    keep = torch.ones(2, 2, 9, 30, dtype=torch.bool)
    half = oracle.attention(replace(call, sinks=None, dropout=0.5), keep)
    torch.testing.assert_close(half.out, 2 * plain.out)
    torch.testing.assert_close(half.lse, plain.lse)


def test_only_what_a_call_uses_is_named_to_a_provider() -> None:
    """The five keywords of the contract are always there, the others where they are used."""
    plain = inputs.generate(Case(4, 4), 0, "cpu").keywords()
    assert set(plain) == {"softmax_scale", "causal", "window_size", "softcap", "alibi_slopes"}
    more = inputs.generate(replace(VARLEN, sinks=True, splits=2, dropout=0.1), 0, "cpu")
    assert set(more.keywords()) == set(plain) | {"layout", "sinks", "splits", "dropout"}
