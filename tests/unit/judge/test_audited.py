"""What the audit of a cell's libraries claims, and the limits that it sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libraries
import pytest
from judged import cell, record

from pinproof.judge import audited
from pinproof.judge.verdict import Verdict
from pinproof.plan.stage import Stage
from pinproof.run.runner import with_audit

FA2 = "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so"
FA3 = "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so"


def library(file: str, status: str, **more: Any) -> dict[str, Any]:
    facts = {"sass": ["sm_90a"], "ptx": [], "driver": "", "problem": ""}
    return {"file": file, "sha256": "a" * 64, "status": status, **facts, **more}


def inspected(*libraries: dict[str, Any]) -> dict[str, Any]:
    return {"audit": list(libraries)}


VLLM = cell(target="sm_120", vllm="0.33.0")


def test_machine_code_for_the_gpu_claims_nothing_and_sets_no_limit() -> None:
    seen = inspected(library(FA2, "NATIVE"))
    assert not list(audited.claims(VLLM, seen, {}))
    assert not list(audited.limits(VLLM, seen))


def test_ptx_is_a_limit_with_the_driver_that_it_needs() -> None:
    seen = inspected(library(FA2, "PTX-JIT", driver="R580 or newer"), library(FA3, "NONE"))
    assert not list(audited.claims(VLLM, seen, {}))
    told = list(audited.limits(VLLM, seen))
    assert told[0].startswith("vllm-fa2: no machine code for sm_120")
    assert "R580 or newer" in told[0]
    assert told[1] == "vllm-fa3: no code for sm_120"


def test_kernels_without_code_for_the_gpu_are_no_result() -> None:
    seen = inspected(library("flash_attn_2_cuda.cpython-312.so", "NONE", sass=["sm_90"]))
    asked = cell(target="sm_120", flash_attn="2.8.3.post2")
    ((verdict, reason),) = audited.claims(asked, seen, {})
    assert verdict is Verdict.IMPORT_FAIL
    assert "flash-attn hold no code for sm_120 (they hold sm_90)" in reason


def test_a_library_of_an_axis_that_is_not_asked_for_claims_nothing() -> None:
    seen = inspected(library("flash_attn_2_cuda.so", "NONE"))
    assert not list(audited.claims(VLLM, seen, {}))


def audited_in(site: Path) -> dict[str, Any]:
    """Return what inspect says of a site directory, audited as the runner does."""
    seen = record(Stage.INSPECT, {"schema": 1, "extensions": libraries.inspected(site)})
    return dict(with_audit(seen, "sm_120", [site]).data)


@pytest.mark.parametrize("place", ["the document", "a candidate"])
def test_what_was_loaded_is_held_against_what_was_audited(tmp_path: Path, place: str) -> None:
    gpu = libraries.container(libraries.entry(libraries.SASS, 120))
    (own,) = libraries.install(tmp_path / "site", "vllm", FA2, gpu=gpu)
    seen = audited_in(tmp_path / "site")

    def claimed(*paths: Path) -> list[tuple[Verdict, str]]:
        extensions = {"extensions": libraries.loaded(*paths)}
        document = extensions if place == "the document" else {"candidates": [extensions]}
        return list(audited.claims(VLLM, seen, {"inspect": seen, "correctness": document}))

    assert claimed(own) == []
    # A second vLLM in front of the first: what it computes says nothing of the one that is pinned.
    (second,) = libraries.install(tmp_path / "second", "vllm", FA2)
    ((verdict, reason),) = claimed(own, second)
    assert verdict is Verdict.INCONCLUSIVE
    assert reason == f"correctness loaded another {FA2} than was audited: {second}"
    (other,) = libraries.install(tmp_path / "third", "vllm", FA3)
    ((verdict, reason),) = claimed(own, other)
    assert verdict is Verdict.INCONCLUSIVE
    assert reason == f"correctness loaded {other}, which was not audited"


def test_a_library_that_cannot_be_read_says_nothing_of_the_cell() -> None:
    seen = inspected(library(FA2, "UNREADABLE", problem="cut off"))
    ((verdict, reason),) = audited.claims(VLLM, seen, {})
    assert (verdict, reason) == (Verdict.INCONCLUSIVE, f"{FA2} cannot be read: cut off")
