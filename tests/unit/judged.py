"""Cells and evidence in the shape that the stages leave them, for tests of what is said of it."""

from __future__ import annotations

from typing import Any

from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.matrix.cell import Cell, Exclusion
from pinproof.plan.stage import Stage

#: What serving calls all the time: without a pass of it no cell is SAFE.
EASY = ("bf16", "causal", "gqa")
EVERY_USE = ("serving", "training", "everything")
CPU = {"target": "cpu", "gpu": "", "driver": "", "cpu": "Some Processor", "platform": "Linux"}
H100 = {"target": "sm_90", "gpu": "NVIDIA H100", "driver": "580.1", "cpu": "x", "platform": "Linux"}


def cell(number: int = 1, *, target: str = "cpu", excluded: str = "", **axes: str) -> Cell:
    """Return a cell; axes with '_' for '-'."""
    values = {"torch": "2.13.0", **{name.replace("_", "-"): text for name, text in axes.items()}}
    return Cell(
        id=f"{target.replace('_', '')}-{number:06x}",
        matrix="m",
        target=target,
        axes=tuple(values.items()),
        exclusion=Exclusion(rule="a-rule", reason=excluded) if excluded else None,
    )


def record(
    stage: Stage,
    data: dict[str, Any] | None = None,
    *,
    outcome: Outcome = Outcome.OK,
    reason: str = "",
    machine: dict[str, str] = CPU,
) -> Evidence:
    """Return the evidence of one stage that took two seconds."""
    return Evidence(
        cell="cpu-000001",
        stage=stage,
        digest=digest_of({"stage": stage}),
        outcome=outcome,
        reason=reason,
        data=data or {},
        inputs={"stage": stage},
        machine=machine,
        log=f"logs/cpu-000001/{stage}.log",
        started="2026-11-23T18:00:00.000+00:00",
        seconds=2.0,
    )


def check(
    name: str,
    status: str = "PASS",
    *findings: str,
    z: float | None = 1.5,
    uses: tuple[str, ...] = EVERY_USE,
    features: tuple[str, ...] = EASY,
    **more: Any,
) -> dict[str, Any]:
    """Return what one check said of one candidate; `more` are its other keys."""
    return {
        "id": name,
        "kind": "case",
        "status": status,
        "uses": list(uses),
        "features": list(features),
        "case": {"seqlen_q": 128, "seqlen_k": 128},
        "stats": {} if z is None else {"max_z": z},
        "findings": [{"check": "output", "statistic": "x", "text": text} for text in findings],
        "reasons": list(findings),
        "signal": None,
        "infra": False,
        "defect": None,
        "seconds": 0.1,
        **more,
    }


def candidate(name: str, *checks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a candidate of a correctness document, which supports all that it passed."""
    passed = {word for each in checks if each["status"] == "PASS" for word in each["features"]}
    return {
        "name": name,
        "version": "1.0",
        "supports": sorted(passed),
        "available": True,
        "reason": None,
        "cases": list(checks),
        "defects": [],
        **more,
    }


def known(name: str = "a-defect", *, shown: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """Return a known defect as a candidate of the document has it."""
    return {
        "id": name,
        "title": "it is wrong",
        "upstream": "somewhere#1",
        "since": "1.0",
        "sees": "the process dies",
        "avoid": "Sk = 0",
        "cases": list(shown),
        "passed": [],
        **more,
    }


def inspect(*candidates: str, capability: str = "cpu", **more: Any) -> dict[str, Any]:
    """Return an inspect document in which all is well: torch 2.13.0 with triton 3.7.1."""
    return {
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "triton": "3.7.1"},
        "torch": {"version": "2.13.0", "cuda": None},
        "device": {"kind": "cpu" if capability == "cpu" else "cuda", "capability": capability},
        "imports": [
            {"module": name, "ok": True, "error": None, "seconds": 1}
            for name in ("torch", "triton")
        ],
        "candidates": [{"name": name, "available": True, "reason": None} for name in candidates],
        **more,
    }


def correctness(*candidates: dict[str, Any], harness: str = "PASS") -> dict[str, Any]:
    """Return a correctness document."""
    failures = [] if harness == "PASS" else [{"case": "128x128-d64", "reason": "max|z| 90 > 25"}]
    return {
        "schema": 1,
        "stage": "correctness",
        "device": {"kind": "cpu", "capability": "cpu"},
        "harness": {"status": harness, "cases": 96, "failures": failures},
        "candidates": list(candidates),
        "incomplete": [],
    }


#: What a correctness document would say of a harness of which nothing is known.
SILENT = {"status": "", "cases": 0, "failures": []}


def point(
    candidate: str,
    ratio: float | None = 1.2,
    *,
    half: float = 0.01,
    status: str = "OK",
    **more: Any,
) -> dict[str, Any]:
    """Return one point of a throughput document."""
    return {
        "candidate": candidate,
        "point": "prefill",
        "status": status,
        "ratio": ratio,
        "low": ratio and ratio * (1 - half),
        "high": ratio and ratio * (1 + half),
        "reason": None,
        **more,
    }


def throughput(*points: dict[str, Any], baseline: str = "triton") -> dict[str, Any]:
    """Return a throughput document."""
    device = {"kind": "cpu", "capability": "cpu"}
    return {"baseline": baseline, "device": device, "points": list(points)}


def whole(
    *checks: dict[str, Any],
    points: tuple[dict[str, Any], ...] = (),
    machine: dict[str, str] = CPU,
    defects: tuple[dict[str, Any], ...] = (),
    **more: Any,
) -> dict[Stage, Evidence]:
    """Return the evidence of a cell that went all the way, with torch's CPU kernel in it."""
    found = candidate("torch-cpu-flash", *(checks or (check("easy"),)), defects=list(defects))
    device = {"device": {"capability": machine["target"]}}
    documents = {
        Stage.RESOLVE: {},
        Stage.INSTALL: {},
        Stage.INSPECT: inspect("torch-cpu-flash"),
        Stage.CORRECTNESS: correctness(found) | device,
        Stage.THROUGHPUT: throughput(*(points or (point("torch-cpu-flash"),))) | device,
        **more,
    }
    return {stage: record(stage, data, machine=machine) for stage, data in documents.items()}
