"""What failed imports and missing candidates claim."""

import judged
import pytest
from judged import cell

from pinproof.judge import imports
from pinproof.judge.verdict import Verdict


def broken(module, error, **more):
    return {"module": module, "ok": False, "error": error, "seconds": 1, **more}


def test_an_import_that_the_axes_ask_for_must_work():
    failed = broken("vllm", "undefined symbol: _ZN3c10")
    claims = list(imports.claims(cell(vllm="0.33.0"), judged.inspect("vllm-fa2", imports=[failed])))
    assert claims == [(Verdict.IMPORT_FAIL, "import vllm: undefined symbol: _ZN3c10")]


def test_an_import_that_lacks_only_the_driver_says_nothing_against_the_combination():
    failed = broken("vllm", "libcuda.so.1: cannot open shared object file")
    inspect = judged.inspect("vllm-fa2", imports=[failed])
    assert list(imports.claims(cell(target="sm_120", vllm="0.33.0"), inspect)) == []
    ((verdict, _),) = imports.claims(cell(vllm="0.33.0"), inspect)
    assert verdict is Verdict.INCONCLUSIVE


def test_an_import_that_was_killed_from_outside_is_the_machines_fault():
    failed = broken("vllm", "killed by SIGKILL", signal="SIGKILL")
    inspect = judged.inspect("vllm-fa2", imports=[failed])
    ((verdict, _),) = imports.claims(cell(vllm="0.33.0"), inspect)
    assert verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("axis", ["vllm", "flash_attn"])
def test_a_candidate_that_the_axes_ask_for_must_be_there(axis):
    inspect = judged.inspect("torch-sdpa-flash", capability="sm_90")
    (claim,) = imports.claims(cell(target="sm_90", **{axis: "1.0"}), inspect)
    name = axis.replace("_", "-")
    assert claim == (
        Verdict.IMPORT_FAIL, f"no attention of {name} can be called: it is not there"
    )  # fmt: skip
    assert list(imports.claims(cell(target="sm_90", **{axis: "none"}), inspect)) == []


def test_a_kernel_that_cannot_be_loaded_beside_a_good_one_fails_the_import():
    inspect = judged.inspect("vllm-fa2", capability="sm_90")
    why = "undefined symbol: _ZN3c10"
    inspect["candidates"].append({"name": "vllm-fa3", "available": False, "reason": why})
    (claim,) = imports.claims(cell(target="sm_90", vllm="0.24.0"), inspect)
    assert claim == (Verdict.IMPORT_FAIL, f"vllm-fa3: {why}")
    inspect["candidates"][-1]["reason"] = "it is for sm_100"
    assert list(imports.claims(cell(target="sm_90", vllm="0.24.0"), inspect)) == []
