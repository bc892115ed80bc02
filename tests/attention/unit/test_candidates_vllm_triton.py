"""vLLM's Triton kernel: what it refuses, how it is found without vLLM, and its numbers.

The numbers need the files of a real wheel, unpacked on the path or installed without what it
depends on: PYTHONPATH=src:UNPACKED_WHEEL TRITON_INTERPRET=1 python -m pytest THIS_FILE
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pinproof_cell.candidates import vllm_hollow, vllm_triton
from pinproof_cell.candidates.distribution import version
from pinproof_cell.judge import thresholds
from pinproof_cell.judge.forward import judge
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case

CANDIDATE = vllm_triton.INTERPRETED
RAGGED = ((3, 40), (0, 0), (5, 5), (1, 33), (17, 60))

CASES = (
    Case(40, 90, heads=4, causal=True),
    Case(40, 90, causal=True, window=(20, 0)),
    Case(40, 90, causal=True, softcap=15.0, kind="large"),
    Case(40, 90, 40, causal=True, alibi=True, batch=1),
    Case(40, 90, 80, heads=8, heads_k=1, sinks=True, dtype="fp32"),
    Case(5, 1),
    Case(1, 300, 128, heads=8),
    Case(1, 300, heads=8, splits=4, sinks=True),
    Case(96, 96, memory="packed", causal=True, scale=0.3),
    Case(0, 0, layout="varlen", lengths=RAGGED, heads=4, causal=True),
    Case(0, 0, layout="paged", page=16, lengths=RAGGED, heads=4, causal=True),
    Case(0, 0, layout="paged", page=64, lengths=RAGGED, causal=True, window=(20, 0), sinks=True),
    Case(0, 0, layout="paged", page=256, lengths=((1, 40), (1, 7)), heads=8, sinks=True),
)


@pytest.mark.skipif(not version("vllm"), reason="no vLLM wheel on the path")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="not interpreted")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_kernel_of_the_wheel_passes_in_the_interpreter(case: Case) -> None:
    """Unmodified, from a vLLM that cannot be imported here, it computes what it admits."""
    case = replace(case, dtype="fp16") if case.dtype == "bf16" else case
    assert case.features <= CANDIDATE.supports
    assert CANDIDATE.available() is None
    call = inputs.generate(case, 0, "cpu")
    truth = oracle.attention(call)
    out, lse = CANDIDATE.forward(call)
    assert lse is None
    found = judge(
        out.reshape(truth.out.shape),
        truth.lse.float(),
        truth,
        thresholds=thresholds.load("cpu"),
        dtype=call.q.dtype,
    )
    assert found.status == "PASS", found


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case(8, 4, causal=True), "does not take empty-rows"),
        (Case(8, 0), "does not take no-keys"),
        (Case(0, 0, layout="varlen", lengths=((4, 9), (3, 0))), "no queries that see no key"),
        (Case(0, 0, layout="varlen", lengths=((4, 9), (3, 2)), causal=True), "see no key"),
        (Case(0, 0, layout="varlen", lengths=((9, 2),), window=(5, 5)), "see no key"),
        (Case(8, 8, 16), "heads from 32 on"),
        (Case(8, 8, window=(5, 3)), r"no window \(5, 3\)"),
        (Case(8, 8, alibi=True), "under a causal mask"),
        (Case(8, 8, causal=True, alibi=True, sinks=True), "without sinks"),
        (Case(8, 8, causal=True, alibi=True), "the same ALiBi slopes for every sequence"),
        (Case(0, 0, layout="paged", page=24, lengths=((4, 9),)), "multiple of 16 rows, not 24"),
        (Case(0, 0, layout="left-padded", lengths=((4, 9),)), "does not take left-padding"),
        (Case(8, 8, head_dim_v=32), "does not take value-head"),
        (Case(8, 8, dropout=0.5), "does not take dropout"),
        (Case(8, 8, dtype="bf16"), "does not take bf16"),
    ],
)
def test_what_the_kernel_would_get_wrong_is_refused(case: Case, words: str) -> None:
    """What vLLM never asks of it, and what it would read otherwise, is refused before."""
    case = case if case.dtype == "bf16" and "bf16" in words else replace(case, dtype="fp16")
    with pytest.raises(NotImplementedError, match=words):
        CANDIDATE.forward(inputs.generate(case, 0, "cpu"))


def test_a_gpu_multiplies_float32_in_less_and_the_interpreter_knows_no_bfloat16() -> None:
    """The two forms of the candidate admit different types."""
    types = {"fp16", "bf16", "fp32"}
    assert vllm_triton.COMPILED.supports & types == {"fp16", "bf16"}
    assert vllm_triton.INTERPRETED.supports & types == {"fp16", "fp32"}


KERNEL = """
import vllm.envs as envs
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.triton_utils import tl, triton
from vllm.v1.attention.ops.helpers import HELP
from vllm.v1.kv_cache_interface import KVQuantMode

init_logger(__name__).debug_once("hello")
BIG = current_platform.is_device_capability_family(100)
PLAIN, PACKED = KVQuantMode.NONE, KVQuantMode.INT4_PER_TOKEN_HEAD
"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a vLLM whose import fails, as it does without a GPU."""
    files = {
        "vllm/__init__.py": "raise ImportError('libcuda.so.1')",
        "vllm/envs.py": "VLLM_BATCH_INVARIANT = False",
        "vllm/v1/attention/ops/helpers.py": "HELP = 7",
        "vllm/v1/attention/ops/triton_unified_attention.py": KERNEL,
        "vllm-9.9.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm\nVersion: 9.9.9\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def test_a_module_of_vllm_is_imported_without_vllm(wheel: Path) -> None:
    """The real file runs below stand-ins, and nothing of it stays behind."""
    found = vllm_hollow.load("vllm.v1.attention.ops.triton_unified_attention")
    assert found.__file__ == str(wheel / "vllm/v1/attention/ops/triton_unified_attention.py")
    assert (found.HELP, found.BIG, found.PLAIN) == (7, False, 0)
    assert found.PLAIN != found.PACKED
    assert not [name for name in sys.modules if name.split(".")[0] == "vllm"]
    with pytest.raises(ImportError, match="libcuda"):
        import vllm  # noqa: F401


def test_a_vllm_without_the_kernel_and_no_vllm_are_told_apart(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a reason of its own."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(vllm_triton, "_kernel", vllm_triton._kernel.__wrapped__)
    assert CANDIDATE.available() is None
    (wheel / "vllm/v1/attention/ops/triton_unified_attention.py").unlink()
    assert "No module named 'vllm.attention.ops" in str(CANDIDATE.available())
    missing = ("vllm", "vllm-9.9.9.dist-info")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "vllm" not in p])
    for name in missing:
        (wheel / name).rename(wheel / f"{name}.away")
    assert CANDIDATE.available() == "ModuleNotFoundError: no vLLM is installed"


def test_outside_the_interpreter_a_cpu_cannot_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the variable."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "TRITON_INTERPRET is not 1" in str(CANDIDATE.available())


def test_slopes_of_every_sequence_alike_are_one_for_each_head() -> None:
    """They are refused where they differ, and become those of the heads where they do not."""
    call = inputs.generate(Case(8, 8, causal=True, alibi=True, dtype="fp16"), 0, "cpu")
    assert call.alibi_slopes is not None
    same = replace(call, alibi_slopes=call.alibi_slopes[:1].expand(2, -1))
    found = CANDIDATE._slopes(same, True)
    assert found is not None
    assert torch.equal(found, call.alibi_slopes[0])
