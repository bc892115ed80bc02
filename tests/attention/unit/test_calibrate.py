"""The verb `calibrate`: right kernels pass, what they reach is told, wrong ones are rejected."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import invented
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from searched import scaled

from pinproof_cell.__main__ import main
from pinproof_cell.calibration import kernels, summary, verb, worker
from pinproof_cell.calibration.kernels import Calibrator
from pinproof_cell.calibration.law import LAWS
from pinproof_cell.candidates.provider import Provider
from pinproof_cell.judge import defects, thresholds
from pinproof_cell.request import BadRequestError
from pinproof_cell.world import device
from pinproof_cell.world.journal import Journal

SOME = st.lists(st.floats(0, 100), min_size=1)


@given(SOME)
def test_quantiles_are_values_in_order_and_the_last_is_the_largest(values: list[float]) -> None:
    found = summary.quantiles(values)
    assert list(found) == ["p50", "p99", "p99.9", "max"]
    assert list(found.values()) == sorted(found.values())
    assert found["max"] == pytest.approx(max(values), rel=1e-3)


def run(kernel: str = "honest", dtype: str = "bf16", **stats: float) -> dict[str, Any]:
    asked = {"kernel": kernel, "dtype": dtype, "case": "1x2", "size": (4, 64)}
    return {**asked, "status": "PASS", "stats": stats}


def test_a_histogram_counts_every_run_once_and_those_above_the_limit_last() -> None:
    runs = [run(max_z=value) for value in (0.0, 0.1, 4.0, 7.99, 8.0, 1e9)]
    found = summary.histograms(runs, {"max_z": 8.0})["max_z"]
    assert found["limit"] == 8.0
    counts = found["kernels"]["honest"]
    assert sum(counts) == len(runs)
    assert (counts[0], counts[20], counts[-2:]) == (2, 1, [1, 2])
    assert sum(found["law"]) == pytest.approx(len(runs), rel=1e-2)


@pytest.mark.parametrize("name", list(LAWS))
def test_a_law_is_what_normal_errors_reach(name: str) -> None:
    """Half of all drawn cases lie below the value that the law says half lie below."""
    rows, dim = 20, 64
    z = torch.randn(4000, rows, dim, generator=torch.Generator().manual_seed(1))
    drawn = {
        "max_z": z.abs().amax((1, 2)),
        "row_rms": z.square().mean(2).amax(1).sqrt(),
        "rms": z.square().mean((1, 2)).sqrt(),
    }[name]
    for share in (0.1, 0.5, 0.9):
        assert LAWS[name](float(drawn.quantile(share)), rows, dim) == pytest.approx(share, abs=0.04)


def test_a_proposed_threshold_is_half_as_much_again_as_the_largest_value() -> None:
    found = summary.proposed([run(max_z=2.0), run("other", max_z=4.0)], {"max_z": 8.0})
    assert found["max_z"]["proposed"] == 6.0
    assert (found["max_z"]["kernel"], found["max_z"]["frozen"]) == ("other", 8.0)


def test_every_statistic_of_the_judge_has_a_limit() -> None:
    known = summary.limits(thresholds.load("cpu"))
    frozen = thresholds.load("cpu")
    assert {"max_z", "row_rms", "rms", "bias_share", "beta_share", "lse_error"} < set(known)
    assert known["dk_row_rms"] == frozen.backward_degraded["row_rms"]


def test_right_kernels_of_a_cpu_pass_and_the_document_says_what_they_reach(tmp_path: Path) -> None:
    result = tmp_path / "calibration.json"
    words = ["calibrate", "--runs", "200", "--processes", "1", "--seed", "4"]
    assert main([*words, "--json", str(result)]) == 0
    document = json.loads(result.read_text())
    assert document["runs"] == 200
    assert document["rejected"] == []
    assert {"honest", "torch-sdpa-math", "triton-ref"} <= set(document["kernels"])
    runs = [of for kernel in document["kernels"].values() for of in kernel.values()]
    assert sum(of["runs"] for of in runs) == 200
    assert 0 < document["statistics"]["max_z"]["largest"] < 8
    assert document["device"]["name"]


def test_a_calibration_that_was_ended_goes_on_with_what_it_has(tmp_path: Path) -> None:
    """What ran stays, what was open is nobody's fault, and the journal goes with the last run."""
    result, folder = tmp_path / "out.json", tmp_path / "out.json.journal"
    words = ["calibrate", "--processes", "1", "--json", str(result), "--runs"]
    plan = verb.Plan(device="cpu", runs=30, seconds=60.0, folder=folder, processes=1)
    before = verb.calibrate(plan)
    journal = Journal(folder / "0.jsonl")
    asked = {"kernel": "honest", "number": 10**6, "case": "1x2", "dtype": "bf16"}
    journal.add("begin", **asked)
    assert main([*words, "40"]) == 0
    after = json.loads(result.read_text())
    assert (before["runs"], after["runs"], after["rejected"]) == (30, 40, [])
    assert not folder.exists()


def test_runs_of_another_calibration_are_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    plan = verb.Plan(device="cpu", runs=1, seconds=0.0, folder=folder, processes=1)
    verb._journals(plan)
    with pytest.raises(BadRequestError, match="another calibration"):
        verb._journals(replace(plan, seed=1))


def lines(tmp_path: Path, candidate: Any, runs: int = 12) -> list[dict[str, Any]]:
    options = argparse.Namespace(
        device="cpu", seed=0, share=[0, 1], runs=runs, until=time.monotonic() + 100
    )
    journal = Journal(tmp_path / "journal.jsonl")
    worker.run(options, journal, [Calibrator(candidate)], "cpu")
    return journal.lines("end")


def told(found: list[dict[str, Any]]) -> dict[str, Any]:
    plan = verb.Plan(device="cpu", runs=len(found), seconds=1.0, folder=Path())
    return verb.document(plan, found, {"device": device.facts("cpu"), "absent": {}}, 1.0)


def test_a_kernel_that_is_wrong_is_rejected_with_its_case(tmp_path: Path) -> None:
    document = told(lines(tmp_path, Provider("scaled", scaled)))
    assert document["rejected"]
    assert {run["kernel"] for run in document["rejected"]} == {"scaled"}
    assert all(run["case"] and run["reasons"] for run in document["rejected"])
    assert any("FAIL scaled" in line for line in verb.table(document))


def test_a_known_defect_is_told_apart_and_raises_no_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = invented.defect("scaled")
    monkeypatch.setattr(defects, "load", lambda: (known,))
    document = told(lines(tmp_path, Provider("scaled", scaled)))
    assert document["known"]
    assert not any("max|z|" in reason for run in document["rejected"] for reason in run["reasons"])


def test_a_successor_goes_on_behind_the_case_that_ended_its_predecessor(tmp_path: Path) -> None:
    first = lines(tmp_path, Provider("scaled", scaled), runs=6)
    again = lines(tmp_path, Provider("scaled", scaled), runs=12)
    numbers = [line["number"] for line in again]
    assert again[: len(first)] == first
    assert len(numbers) == len(set(numbers))


def test_the_kernels_of_a_cpu_are_the_controls_our_own_and_torch_s_math() -> None:
    found, absent = kernels.of("cpu")
    names = {one.candidate.name for one in found}
    assert {"honest", "keys-reversed", "p-in-float32", "triton-ref", "torch-sdpa-math"} <= names
    assert absent == {}
