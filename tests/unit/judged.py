"""Cells and evidence in the shape that the stages leave them, for tests of what is said of it."""

from __future__ import annotations

from typing import Any

from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.matrix.cell import Cell, Exclusion
from pinproof.plan.stage import Stage

#: A case with all that serving calls: without a pass of it no cell is SAFE.
EASY = "128x128-d64-h4k2-causal-bf16-diffuse"
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


def case(
    case_id: str,
    status: str = "PASS",
    *reasons: str,
    z: float | None = 1.5,
    uses: tuple[str, ...] = EVERY_USE,
    signal: str | None = None,
) -> dict[str, Any]:
    """Return what one case said of one candidate."""
    return {
        "id": case_id,
        "status": status,
        "uses": list(uses),
        "stats": {} if z is None else {"max_z": z},
        "reasons": list(reasons),
        "signal": signal,
        "seconds": 0.1,
    }


def inspect(*candidates: str, capability: str = "cpu", **more: Any) -> dict[str, Any]:
    """Return an inspect document in which all is well."""
    return {
        "device": {"kind": "cpu" if capability == "cpu" else "cuda", "capability": capability},
        "imports": [
            {"module": name, "ok": True, "error": None, "seconds": 1}
            for name in ("torch", "triton")
        ],
        "candidates": [{"name": name, "available": True, "reason": None} for name in candidates],
        **more,
    }


def correctness(harness: str = "PASS", **candidates: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a correctness document; candidates by name with '_' for '-'."""
    failures = [] if harness == "PASS" else [{"case": "128x128-d64", "reason": "max|z| 90 > 25"}]
    return {
        "schema": 1,
        "stage": "correctness",
        "device": {"kind": "cpu", "capability": "cpu"},
        "harness": {"status": harness, "cases": 96, "failures": failures},
        "candidates": [
            {"name": name.replace("_", "-"), "version": "1", "cases": cases}
            for name, cases in candidates.items()
        ],
    }


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
    *cases: dict[str, Any],
    points: tuple[dict[str, Any], ...] = (),
    machine: dict[str, str] = CPU,
    **more: Any,
) -> dict[Stage, Evidence]:
    """Return the evidence of a cell that went all the way, with torch's CPU kernel in it."""
    found = cases or (case(EASY),)
    timed = points or (point("torch-cpu-flash"),)
    device = {"device": {"capability": machine["target"]}}
    documents = {
        Stage.RESOLVE: {},
        Stage.INSTALL: {},
        Stage.INSPECT: inspect("torch-cpu-flash"),
        Stage.CORRECTNESS: correctness(torch_cpu_flash=list(found)) | device,
        Stage.THROUGHPUT: throughput(*timed) | device,
        **more,
    }
    return {stage: record(stage, data, machine=machine) for stage, data in documents.items()}
