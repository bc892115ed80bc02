"""Candidates by name: each gets its document, and a broken one keeps no other from its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pinproof_cell.request import BadRequestError
from pinproof_cell.suite import check

KEPT, LOST = "5x1-d64-bf16-peaked", "P14-one-key@5x1-d64-h4k2-bf16-diffuse"


def test_each_candidate_gets_a_file_with_its_verdict_defects_and_times(tmp_path: Path) -> None:
    """A kernel that is right passes, and torch's CPU kernel dies by its known defect."""
    no_keys = "128x0-d64-bf16-diffuse"
    names = ["torch-sdpa-math", "torch-cpu-flash"]
    asked = {"device": "cpu", "suite": "full", "checks": [KEPT, LOST, no_keys]}
    assert not check.candidates(names, tmp_path, **asked)  # type: ignore[arg-type]
    right, flash = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
    assert (right["verdict"], right["failing"]) == ("PASS", [])
    assert [case["status"] for case in right["cases"]][:2] == ["PASS", "PASS"]
    assert all(case["seconds"] > 0 for case in right["cases"] if case["status"] == "PASS")
    assert right["harness"]["status"] == "PASS"
    assert flash["verdict"] == "CRASH"
    assert [(case["status"], case["defect"]) for case in flash["cases"] if case["defect"]] == [
        ("CRASH", "torch-cpu-no-keys")
    ]
    assert [known["id"] for known in flash["defects"]] == ["torch-cpu-no-keys"]
    assert (flash["device"]["kind"], flash["version"]) == ("cpu", right["version"])


def test_several_candidates_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="2 candidates need a folder"):
        check.candidates(["a", "b"], tmp_path / "one.json", device="cpu", suite="quick")
