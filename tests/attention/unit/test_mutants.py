"""The broken kernels are what they say: honest ones with one step broken, and edits that fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.killmatrix import question
from pinproof_cell.mutants import everything, source
from pinproof_cell.mutants.emulation import HONEST
from pinproof_cell.mutants.source.edit import KERNELS, Edit, edited
from pinproof_cell.mutants.strides import contiguous, reread
from pinproof_cell.oracle import backward as oracle_backward
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import checks, inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.grid import PLAIN

RAGGED = ((17, 33), (0, 5), (64, 64), (3, 130), (9, 0), (40, 20))
WHOLE = {"lengths": RAGGED, "heads": 4, "backward": True}
CASES = (
    *PLAIN[3::8],
    Case(70, 130, 32, heads=4, head_dim_v=48, causal=True, sinks=True, splits=3),
    Case(130, 2, 32, causal=True, sinks=True, window=(5, 0)),
    Case(70, 60, 64, heads=4, window=(20, 3), alibi=True, softcap=4.0),
    *(Case(33, 65, 32, memory=memory) for memory in ("transposed", "expanded", "last-stride")),
    Case(0, 0, 32, layout="varlen", causal=True, alibi=True, **WHOLE),
    Case(0, 0, 32, layout="paged", page=4, window=(20, 3), sinks=True, head_dim_v=16, **WHOLE),
    Case(0, 0, 32, layout="paged", page=64, causal=True, splits=2, **WHOLE),
    Case(0, 0, 32, layout="left-padded", softcap=5.0, sinks=True, **WHOLE),
)


def in_float32(case: Case) -> Call:
    """The call of a case in float32: nothing is rounded away that would hide an error."""
    call = inputs.generate(case, 0, "cpu")
    return replace(call, **{name: getattr(call, name).float() for name in ("q", "k", "v")})


def drop(call: Call) -> Tensor:
    """What the emulation's dropout leaves in of a dense call."""
    torch.manual_seed(3)
    shape = (call.q.shape[0], call.q.shape[2], call.q.shape[1], call.k.shape[1])
    return torch.rand(shape) >= call.dropout


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double().reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_emulation_is_the_oracle_but_for_rounding(case: Case) -> None:
    """In float32 the honest emulation is attention: every layout, sinks, splits, strides."""
    call = in_float32(case)
    out, lse = HONEST(call.q, call.k, call.v, **call.keywords())
    truth = oracle.attention(call)
    close(out, truth.out)
    close(lse, truth.lse)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.layout in ("dense", "varlen")], ids=lambda case: case.id
)
def test_its_gradients_are_the_oracles_but_for_rounding(case: Case) -> None:
    """So are dQ, dK and dV."""
    call, dout = in_float32(case), inputs.output_gradient(case, 0, "cpu").float()
    answer = HONEST(call.q, call.k, call.v, **call.keywords())
    found = HONEST.backward(dout, call.q, call.k, call.v, *answer, **call.keywords())
    truth = oracle_backward.backward(dout, call)
    for gradient, name in zip(found, ("dq", "dk", "dv"), strict=True):
        close(gradient, getattr(truth, name).value)


def test_its_dropout_is_the_same_in_both_passes() -> None:
    """Output and gradients are those of the mask that torch's generator gave."""
    case = Case(70, 60, 32, heads=4, dropout=0.3, backward=True)
    call, dout = in_float32(case), inputs.output_gradient(case, 0, "cpu").float()
    keep = drop(call)
    torch.manual_seed(3)
    answer = HONEST(call.q, call.k, call.v, **call.keywords())
    torch.manual_seed(3)
    found = HONEST.backward(dout, call.q, call.k, call.v, *answer, **call.keywords())
    close(answer[0], oracle.attention(call, keep).out)
    truth = oracle_backward.backward(dout, call, keep)
    for gradient, name in zip(found, ("dq", "dk", "dv"), strict=True):
        close(gradient, getattr(truth, name).value)


def test_reading_by_the_own_strides_reads_the_tensor() -> None:
    """`reread` follows any strides, and wraps only where it is told to."""
    x = torch.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7).transpose(1, 2)[..., ::2]
    assert torch.equal(reread(x, x.stride()), x)
    assert not torch.equal(reread(x, contiguous(x)), x)
    assert int(reread(x, x.stride(), wrap=7).max()) == 6


@pytest.mark.parametrize("edit", source.EDITS, ids=lambda edit: edit.id)
def test_every_edit_still_fits_the_kernel(edit: Edit) -> None:
    """The text that an edit replaces stands in its file exactly once."""
    assert edited(edit) != (KERNELS / edit.file).read_text(encoding="utf-8")


def test_mutants_are_many_named_once_and_all_of_them_are_asked() -> None:
    """Ids are unique, and each mutant meets some check of the full suite."""
    mutants = everything()
    assert len({mutant.id for mutant in mutants}) == len(mutants)
    assert sum(not mutant.control for mutant in mutants) >= 300
    assert sum(mutant.control for mutant in mutants) >= 20
    asked = checks.suite("full", "cpu")
    assert [m.id for m in mutants if not any(question.meets(m, check) for check in asked)] == []
