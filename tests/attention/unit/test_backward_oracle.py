"""The oracle of the gradients is checked against differentiation that knows no formula of it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from pinproof_cell.call import Call
from pinproof_cell.oracle import backward as oracle_backward
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"causal": True},
    {"window_size": (5, 2), "softmax_scale": 0.7},
    {"causal": True, "softcap": 3.0, "alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 1.0])},
    {"causal": True, "sinks": torch.tensor([0.5, -2.0, 3.0, 0.0])},
    {"window_size": (5, 2), "softcap": 3.0, "dropout": 0.3},
]


def draw(seqlen_q: int, seqlen_k: int, heads_k: int) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(3)
    shapes = [(2, seqlen_q, 4, 8)] * 2 + [(2, seqlen_k, heads_k, 8)] * 2
    return [torch.randn(shape, generator=source).double() for shape in shapes]


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda given: "-".join(given) or "plain")
@pytest.mark.parametrize("sizes", [(9, 17, 4), (17, 9, 2), (12, 12, 1)])
def test_gradients_are_those_of_autograd(
    sizes: tuple[int, int, int], arguments: dict[str, Any]
) -> None:
    """dQ, dK and dV are what autograd finds through the forward oracle."""
    dout, q, k, v = draw(*sizes)
    keep = None
    if "dropout" in arguments:
        keep = torch.rand(2, 4, *sizes[:2], generator=torch.Generator().manual_seed(5)) > 0.3
    assert_differentiated(dout, Call(q=q, k=k, v=v, **arguments), keep)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_packed_sequences_are_those_of_autograd(dropout: float) -> None:
    """Sequences of their own lengths, some without queries or keys, as one batch of one."""
    lengths = ((9, 17), (0, 3), (4, 0), (12, 5))
    case = Case(
        12, 17, 8, heads=4, causal=True, alibi=True, sinks=True, dropout=dropout, dtype="fp32",
        layout="varlen", lengths=lengths,
    )  # fmt: skip
    call, dout = inputs.generate(case, 0, "cpu"), inputs.output_gradient(case, 0, "cpu")
    call = replace(call, q=call.q.double(), k=call.k.double(), v=call.v.double())
    keep = None
    if dropout:
        keep = torch.rand(1, 4, 25, 17, generator=torch.Generator().manual_seed(5)) > dropout
    assert_differentiated(dout.double(), call, keep)


def assert_differentiated(dout: torch.Tensor, call: Call, keep: torch.Tensor | None) -> None:
    truth = oracle_backward.backward(dout, call, keep)
    for x in (call.q, call.k, call.v):
        x.requires_grad_()
    oracle.attention(call, keep).out.reshape(dout.shape).backward(dout)
    for found, leaf in ((truth.dq, call.q), (truth.dk, call.k), (truth.dv, call.v)):
        torch.testing.assert_close(
            found.value.reshape(leaf.shape), leaf.grad, rtol=1e-9, atol=1e-12
        )


def test_gradients_of_keys_in_pages_are_refused() -> None:
    """Nobody trains on pages: NotImplementedError, and not a wrong answer."""
    case = Case(5, 9, 8, layout="paged", page=4, lengths=((5, 9),))
    with pytest.raises(NotImplementedError, match="pages"):
        oracle_backward.backward(
            inputs.output_gradient(case, 0, "cpu"), inputs.generate(case, 0, "cpu")
        )


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in chunks of one give what all rows at once give, in every term."""
    dout, q, k, v = draw(9, 17, 2)
    whole = oracle_backward.backward(dout, Call(q=q, k=k, v=v, causal=True, softcap=2.0))
    monkeypatch.setattr(oracle_backward, "CHUNK", 1)
    parts = oracle_backward.backward(dout, Call(q=q, k=k, v=v, causal=True, softcap=2.0))
    for name in ("dq", "dk", "dv"):
        for term in fields(oracle_backward.Gradient):
            torch.testing.assert_close(
                getattr(getattr(whole, name), term.name), getattr(getattr(parts, name), term.name)
            )
    assert whole.largest_logit == pytest.approx(parts.largest_logit)


def test_the_spread_is_the_variance_of_rounded_kernels() -> None:
    """P, dS and the output with uniform relative errors up to u scatter as `spread` says."""
    dout, q, k, v = (x.transpose(1, 2) for x in draw(10, 12, 4))
    source = torch.Generator().manual_seed(4)
    p = torch.softmax(q @ k.transpose(2, 3) * 8**-0.5, -1)
    out, u = p @ v, 2.0**-20

    def shaken(x: torch.Tensor) -> torch.Tensor:
        shape = (4000, *x.shape[-4:])
        noise = torch.rand(shape, generator=source, dtype=torch.float64)
        return x * (1 + u * (2 * noise - 1))

    delta = (shaken(shaken(p) @ v) * dout).sum(-1, keepdim=True)
    ds = shaken(p * (dout @ v.transpose(2, 3) - (out * dout).sum(-1, keepdim=True)))
    ds = ds - p * (delta - (out * dout).sum(-1, keepdim=True))
    seen = {
        "dq": ds @ k * 8**-0.5,
        "dk": ds.transpose(-1, -2) @ q * 8**-0.5,
        "dv": shaken(p).transpose(-1, -2) @ dout,
    }
    dout, q, k, v = (x.transpose(1, 2) for x in (dout, q, k, v))
    truth = oracle_backward.backward(dout, Call(q=q, k=k, v=v))
    for name, samples in seen.items():
        found = samples.var(0).transpose(1, 2) / (u * u / 3)
        torch.testing.assert_close(found, getattr(truth, name).spread, rtol=0.12, atol=0)


def test_nothing_to_see_is_exactly_zero() -> None:
    """Queries without keys, keys without queries and lengths of 0 have gradient and tail 0."""
    dout, q, k, v = draw(9, 4, 2)
    truth = oracle_backward.backward(dout, Call(q=q, k=k, v=v, causal=True))
    assert not truth.dq.value[:, :5].any()
    assert not truth.dq.tail[:, :5].any()
    far = oracle_backward.backward(dout[:, :2], Call(q=q[:, :2], k=k, v=v, window_size=(1, 0)))
    assert not far.dk.value[:, 0].any()
    assert not far.dv.tail[:, 0].any()
    none = oracle_backward.backward(dout, Call(q=q, k=k[:, :0], v=v[:, :0]))
    assert not none.dq.value.any()
    assert none.dk.value.shape == (2, 0, 2, 8)
    assert oracle_backward.backward(dout[:, :0], Call(q=q[:, :0], k=k, v=v)).dq.value.shape == (
        2,
        0,
        4,
        8,
    )
