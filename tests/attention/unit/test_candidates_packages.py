"""Candidates of packages that need a GPU, held to the packages' documented functions."""

from __future__ import annotations

import sys
from dataclasses import replace

import doubles
import pytest
import torch

from pinproof_cell import candidates
from pinproof_cell.call import Call
from pinproof_cell.judge import thresholds
from pinproof_cell.judge.forward import judge
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case

LIMITS = thresholds.load("cpu")
RAGGED = ((3, 40), (5, 5), (0, 7), (1, 33), (17, 60))
EVEN = ((4, 40), (4, 300), (4, 4))

CASES = (
    Case(40, 70, heads=4, causal=True),
    Case(70, 40, heads=4, causal=True),
    Case(40, 70, window=(9, 3)),
    Case(40, 70, causal=True, window=(9, 0), dtype="fp16"),
    Case(40, 70, causal=True, window=(70, -1), alibi=True),
    Case(40, 70, causal=True, alibi=True),
    Case(40, 70, window=(-1, 0), alibi=True),
    Case(40, 70, alibi=True),
    Case(40, 70, causal=True, softcap=5.0, scale=0.3),
    Case(40, 70, causal=True, sinks=True),
    Case(1, 300, heads=8, splits=3),
    Case(40, 70, 111, causal=True),
    Case(40, 70, 192, head_dim_v=128),
    Case(40, 0),
    Case(0, 40),
    Case(0, 0, layout="varlen", lengths=RAGGED, heads=4, causal=True),
    Case(0, 0, layout="varlen", lengths=RAGGED, heads=4, causal=True, alibi=True),
    Case(0, 0, layout="varlen", lengths=((4, 9), (2, 7)), causal=True, sinks=True),
    Case(0, 0, layout="paged", page=16, lengths=RAGGED, heads=4, causal=True, softcap=3.0),
    Case(0, 0, layout="paged", page=256, lengths=RAGGED, heads=4, causal=True),
    Case(0, 0, layout="paged", page=256, lengths=EVEN, causal=True, splits=2),
    Case(0, 0, layout="paged", page=256, lengths=EVEN, causal=True, alibi=True),
    Case(0, 0, layout="paged", page=64, lengths=((1, 40), (1, 90)), window=(20, 0)),
    Case(0, 0, layout="left-padded", lengths=EVEN, heads=4, causal=True),
    Case(0, 0, layout="left-padded", lengths=EVEN, causal=True, alibi=True, splits=2),
)


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    package, cute, vllm = doubles.flash_attn(), doubles.cute(), doubles.vllm_flash_attn()
    package.cute = cute
    modules = {
        "flash_attn": package,
        "flash_attn.cute": cute,
        "vllm": type(sys)("vllm"),
        "vllm.vllm_flash_attn": vllm,
        "flashinfer": doubles.flashinfer(),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def drawn(case: Case) -> Call:
    return inputs.generate(case, 0, "cpu")


NAMES = ("flash-attn-2", "flash-attn-4", "vllm-fa2", "vllm-fa3", "flashinfer")
ADMITTED = [
    pytest.param(name, case, id=f"{name}-{case.id}")
    for name in NAMES
    for case in CASES
    if case.features <= candidates.get(name).supports
]


def declines(name: str, case: Case) -> str | None:
    """Return the words of a refusal of features that are admitted one by one, or None."""
    if name == "flash-attn-4" and case.splits:
        return "SplitKV not supported"
    if name == "flashinfer" and case.window[1] > 0:
        return "no window to the right"
    return None


@pytest.mark.parametrize(("name", "case"), ADMITTED)
def test_what_a_candidate_admits_reaches_its_package(name: str, case: Case) -> None:
    """Arguments, layouts, and the log-sum-exp in each package's convention come out right."""
    candidate, call = candidates.get(name), drawn(case)
    if words := declines(name, case):
        with pytest.raises(NotImplementedError, match=words):
            candidate.forward(call)
        return
    out, lse = candidate.forward(call)
    truth = oracle.attention(call)
    assert lse is not None
    found = judge(
        out.reshape(truth.out.shape),
        lse.reshape(truth.lse.shape),
        truth,
        thresholds=LIMITS,
        dtype=call.q.dtype,
        empty_lse=candidate.lse_on_empty_rows,
    )
    assert found.status == "PASS", found


def test_flash_attn_2_refuses_what_no_function_of_it_takes() -> None:
    """Splits of packed sequences, caches of unequal queries, small pages, dropout of a cache."""
    forward = candidates.get("flash-attn-2").forward
    ragged = Case(0, 0, layout="varlen", lengths=RAGGED)
    with pytest.raises(NotImplementedError, match="splits of packed sequences"):
        forward(drawn(replace(ragged, splits=2)))
    paged = replace(ragged, layout="paged", page=256)
    with pytest.raises(NotImplementedError, match="as many queries of each sequence"):
        forward(drawn(replace(paged, splits=2)))
    with pytest.raises(NotImplementedError, match="as many queries of each sequence"):
        forward(drawn(replace(ragged, layout="left-padded")))
    with pytest.raises(NotImplementedError, match="pages of a multiple of 256 rows, not 128"):
        forward(drawn(replace(paged, page=128)))
    with pytest.raises(NotImplementedError, match="dropout or gradients of a cache"):
        forward(drawn(replace(paged, lengths=EVEN, dropout=0.5)))


def test_vllm_wants_pages_of_sixteen_and_bfloat16_sinks() -> None:
    """Other pages, and sinks that would be rounded, are refused."""
    case = Case(0, 0, layout="paged", page=24, lengths=EVEN)
    for name in ("vllm-fa2", "vllm-fa3"):
        with pytest.raises(NotImplementedError, match="multiple of 16 rows, not 24"):
            candidates.get(name).forward(drawn(case))
    with pytest.raises(NotImplementedError, match="sinks in bfloat16 only"):
        candidates.get("vllm-fa3").forward(
            replace(drawn(Case(8, 8)), sinks=torch.tensor([0.1, 0.2]))
        )


def test_flashinfer_takes_three_head_dimensions() -> None:
    """A head of 80 is refused, with the list."""
    with pytest.raises(NotImplementedError, match=r"heads of \(64, 128, 256\) only"):
        candidates.get("flashinfer").forward(drawn(Case(8, 8, 80)))
