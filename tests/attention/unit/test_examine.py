"""A check sees what is wrong with an output, its gradients and its dropout, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from eager import backward, drawn, eager
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.candidates.provider import Provider
from pinproof_cell.judge import thresholds
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.suite.checks import Check, Repeats
from pinproof_cell.suite.examine import examine
from pinproof_cell.suite.trial import Result

GRADIENTS = Case(33, 50, 32, heads=4, causal=True, backward=True)
DROPOUT = Case(40, 70, 32, causal=True, dropout=0.25)


def asked(
    check: Check,
    function: Callable[..., Any] = eager,
    gradients: Callable[..., Any] | None = backward,
    supports: frozenset[str] = FEATURES,
) -> Result:
    def provider(*tensors: Tensor, **rest: Any) -> Any:
        return function(*tensors, **rest)

    provider.supports = supports  # type: ignore[attr-defined]
    if gradients is not None:
        provider.backward = gradients  # type: ignore[attr-defined]
    return examine(
        Provider("provider", provider),
        check,
        seed=0,
        device="cpu",
        thresholds=thresholds.load("cpu"),
    )


def test_a_right_kernel_passes_with_gradients_and_both_columns_of_fa() -> None:
    """Gradients are judged beside the output, and flash-attn's rule is shown for each."""
    found = asked(GRADIENTS)
    assert found.status == "PASS", found.reasons
    assert {"max_z", "dq_max_z", "dk_rms", "dv_row_rms", "lse_error"} <= set(found.stats)
    for name in ("fa_ratio", "dq_fa_ratio", "dk_fa_ratio", "dv_fa_ratio"):
        assert 0 < found.stats[name] < 2


def wrong(change: Callable[[Tensor, Tensor, Tensor], Any]) -> Callable[..., Any]:
    def gradients(*arguments: Any, **rest: Any) -> Any:
        return change(*backward(*arguments, **rest))

    return gradients


def touches(dout: Tensor, *arguments: Any, **rest: Any) -> Any:
    found = backward(dout, *arguments, **rest)
    dout.mul_(2)
    return found


def raises(*arguments: Any, **rest: Any) -> Any:
    raise RuntimeError("bad day")


@pytest.mark.parametrize(
    ("gradients", "statistic"),
    [
        (wrong(lambda dq, dk, dv: (dq, dk * 1.5, dv)), "dk_max_z"),
        (wrong(lambda dq, dk, dv: (dq, dk, dv.fill_(torch.nan))), "dv_non_finite"),
        (wrong(lambda dq, dk, dv: (dq.float(), dk, dv)), "dtype"),
        (wrong(lambda dq, dk, dv: (dq[:, 1:], dk, dv)), "shape"),
        (wrong(lambda dq, dk, dv: (dq, dk)), "type"),
        (lambda dout, q, k, v, out, lse, **rest: (q, k, v), "aliases-input"),
        (touches, "input-changed"),
        (raises, "raises"),
    ],
)
def test_gradients_are_held_to_the_contract_and_to_the_numbers(
    gradients: Callable[..., Any], statistic: str
) -> None:
    """Wrong numbers, NaN, shape, type, views, changed inputs and errors each have their name."""
    found = asked(GRADIENTS, gradients=gradients)
    assert found.status in ("FAIL", "ERROR")
    assert found.findings[0].statistic == statistic


def test_without_a_backward_gradients_are_unsupported() -> None:
    """Whoever has no backward is not asked for gradients, and does not pass."""
    assert asked(GRADIENTS, gradients=None).status == "UNSUPPORTED"


@pytest.mark.parametrize("ragged", [False, True])
def test_dropout_is_judged_with_the_mask_that_the_kernel_drew(ragged: bool) -> None:
    """The mask is read through the kernel, also of more keys than V has columns, and packed."""
    lengths = ((40, 70), (3, 20)) if ragged else ()
    case = replace(DROPOUT, lengths=lengths, layout="varlen" if ragged else "dense")
    found = asked(case)
    assert found.status == "PASS", found.reasons


def dropping(draw: Callable[[Call], Tensor], scale: float = 1.0) -> Callable[..., Any]:
    def function(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
        call = Call(q=q, k=k, v=v, **rest)
        truth = oracle.attention(call, draw(call))
        return (scale * truth.out).to(q.dtype), truth.lse.float()

    return function


def fixed(call: Call) -> Tensor:
    shape = (call.q.shape[0], call.q.shape[2], call.q.shape[1], call.k.shape[1])
    return torch.rand(shape, generator=torch.Generator().manual_seed(7)) >= call.dropout


def shared(axis: int) -> Callable[[Call], Tensor]:
    def draw(call: Call) -> Tensor:
        found = drawn(call)
        assert found is not None
        return found.narrow(axis, 0, 1).expand_as(found)

    return draw


def tiled(call: Call) -> Tensor:
    found = drawn(call)
    assert found is not None
    return found[..., torch.arange(found.shape[-1]) % 16]


@pytest.mark.parametrize(
    ("function", "statistic"),
    [
        (dropping(lambda call: torch.ones_like(fixed(call)), 0.75), "dropout_share"),
        (dropping(fixed), "dropout_seed"),
        *((dropping(shared(axis)), "dropout_repeats") for axis in (0, 1, 2)),
        (dropping(tiled), "dropout_repeats"),
        (dropping(lambda call: drawn(replace(call, dropout=0.5))), "dropout_share"),  # type: ignore[arg-type, return-value]
    ],
)
def test_a_strange_mask_fails(function: Callable[..., Any], statistic: str) -> None:
    """No dropout, a constant seed, a mask used again and the wrong probability fail."""
    found = asked(DROPOUT, function)
    assert found.status == "FAIL"
    assert statistic in [finding.statistic for finding in found.findings]


def test_few_keys_may_share_a_mask_by_chance() -> None:
    """Two keys that fare alike under two seeds prove nothing, and are not held against a kernel."""
    case = Case(1, 2, 8, heads=1, heads_k=1, batch=1, dropout=0.9)
    found = asked(case)
    assert found.status == "PASS", found.reasons


def test_dropout_without_its_scale_fails() -> None:
    """What is left must be divided by the share that is left."""
    found = asked(DROPOUT, dropping(lambda call: drawn(call), 0.75))  # type: ignore[arg-type, return-value]
    assert found.status == "FAIL"
    assert {finding.check for finding in found.findings} == {"output"}


def test_a_sink_alone_is_what_a_row_without_keys_has() -> None:
    """With sinks an empty row's log-sum-exp is the sink's, or the candidate's word for empty."""
    case = Case(20, 4, 16, causal=True, sinks=True)
    assert asked(case).status == "PASS"

    def minus_infinity(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
        truth = oracle.attention(Call(q=q, k=k, v=v, **rest))
        return truth.out.to(q.dtype), truth.lse.masked_fill(truth.empty, -torch.inf).float()

    assert asked(case, minus_infinity).status == "PASS"


def test_repeats_hold_gradients_but_dq_only_where_that_is_promised() -> None:
    """dK and dV must come again bit by bit; dQ for a kernel that is "deterministic"."""

    def atomic(*arguments: Any, **rest: Any) -> tuple[Tensor, ...]:
        dq, dk, dv = backward(*arguments, **rest)
        return dq * (1 + torch.rand(()).item() * 2**-7), dk, dv

    def seedless(*arguments: Any, **rest: Any) -> tuple[Tensor, ...]:
        torch.seed()
        return atomic(*arguments, **rest)

    check = Repeats(GRADIENTS, 20)
    assert asked(check, gradients=seedless, supports=FEATURES - {"deterministic"}).status == "PASS"
    found = asked(check, gradients=seedless)
    assert found.status in ("DEGRADED", "FLAKY")
    assert found.reasons[0].startswith("dq of call")


def test_repeats_that_need_not_be_exact_allow_what_rounding_does() -> None:
    """A decode may merge in any order: bits may vary, numbers may not."""

    def shaky(size: float) -> Any:
        # Not by chance: noise of one unit in the last place would now and then be none.
        calls = itertools.count()

        def forward(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
            out, lse = eager(q, k, v, **rest)
            return out, lse + size * (next(calls) > 0)

        return forward

    loose = Repeats(Case(1, 50), 20, exact=False)
    found = asked(loose, shaky(1e-6))
    assert (found.status, found.stats["differing"]) == ("PASS", 19)
    assert asked(loose, shaky(0.5)).status == "FLAKY"
    assert asked(Repeats(Case(1, 50), 20), shaky(1e-6)).status == "DEGRADED"


def test_what_the_harness_fails_at_is_not_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the oracle does not get is NOT-RUN and the machine's."""

    def greedy(*arguments: Any) -> Any:
        raise MemoryError("for the oracle")

    monkeypatch.setattr(oracle, "attention", greedy)
    found = asked(Case(7, 9, 16))
    assert (found.status, found.infra) == ("NOT-RUN", True)
    assert "harness: MemoryError: for the oracle" in found.reasons[0]
