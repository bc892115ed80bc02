"""What narrows a run, and cells that this machine cannot measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkouts import CELL, Project, row_of

#: An index that nobody answers for: what works with it works without a network.
NOWHERE = "http://127.0.0.1:9/wheels"


def test_until_stops_behind_the_stage_and_claims_nothing(project: Project, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ended = project.matrix("--cell", CELL, "--until", "install", "--store", str(store))
    assert ended.code == 3, ended.text
    assert "UNVERIFIED" in row_of(ended, CELL)
    stages = {Path(name).name.split("-")[0] for name in project.evidence(store)}
    assert stages == {"resolve", "install"}


@pytest.mark.parametrize("matrix", ["blackwell-release", "blackwell-nightly"])
def test_a_dry_run_plans_for_another_gpu_without_a_network(
    project: Project, tmp_path: Path, matrix: str
) -> None:
    store = tmp_path / "store"
    ended = project.matrix(
        *("--matrix", matrix, "--dry-run", "--store", str(store)),
        PIP_INDEX_URL=NOWHERE,
        UV_DEFAULT_INDEX=NOWHERE,
    )
    assert ended.code == 0, ended.text
    assert "plan " in ended.out
    assert "sm120-" in ended.out
    assert not store.exists()


def test_the_preview_counts_what_the_rules_exclude(project: Project, tmp_path: Path) -> None:
    ended = project.matrix(
        *("--matrix", "blackwell-release", "--dry-run", "--store", str(tmp_path / "store"))
    )
    assert "excluded   140 cells by rule: " in ended.out
    assert "correctness  unavailable  needs sm_120; this machine has no GPU" in ended.out


def test_a_cell_for_a_gpu_that_is_not_here_is_unverified_and_never_safe(
    proven: Project, tmp_path: Path
) -> None:
    # The system back end on the proven cell's interpreter: real torch, and nothing to download.
    matrix = tmp_path / "matrix.toml"
    matrix.write_text(
        """
        format = 1
        [targets.sm_120]
        [[matrix]]
        name = "far"
        target = "sm_120"
        backend = "system"
        axes = { torch = ["installed"] }
        """,
        encoding="utf-8",
    )
    store = tmp_path / "store"
    ended = proven.matrix(
        *("--matrix-file", str(matrix), "--matrix", "far", "--store", str(store)),
        *("--python", str(proven.python(CELL))),
    )
    document = proven.results("far", store)
    (cell,) = document["cells"]
    assert cell["verdict"] == "UNVERIFIED", json.dumps(cell, indent=1) + ended.text
    assert "sm_120" in cell["reason"]
    assert document["run_on"] == []
    assert ended.code == 3
