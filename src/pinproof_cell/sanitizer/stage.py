"""The sanitize stage: a few calls of every candidate under each tool of compute-sanitizer.

Imports no torch: children do. What could not be looked at is never clean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pinproof_cell import candidates
from pinproof_cell.request import SCHEMA, Request
from pinproof_cell.sanitizer import look, tool


def run(document: Mapping[str, Any]) -> dict[str, Any]:
    """Look at every candidate of a request; returns the sanitize document.

    Without a GPU or the tool there is a ``reason`` and no candidate; ``incomplete`` says what could
    not be looked at.
    """
    request = Request.parse(dict(document))
    program = tool.find()
    reason = _hindrance(request.target, program)
    found: list[dict[str, Any]] = []
    if program is not None and not reason:
        known = candidates.find(request.axes, "cuda")
        for name in request.candidates or [each.name for each in known]:
            subject = look.Subject(
                candidate=name, target=request.target, program=program, seed=request.seed
            )
            found.append(look.at(subject))
    return {
        "schema": SCHEMA,
        "stage": "sanitize",
        "cell": request.cell,
        "device": next((entry["device"] for entry in found if entry["device"]), None),
        "tool": tool.version(program) if program and not reason else None,
        "reason": reason,
        "candidates": found,
        "incomplete": [reason] if reason else list(_incomplete(found)),
    }


def _hindrance(target: str, program: Path | None) -> str | None:
    if target == "cpu":
        return f"{tool.NAME} looks at kernels of a GPU; the target is cpu"
    if program is None:
        return (
            f"{tool.NAME} was not found on PATH, in CUDA_HOME or in /usr/local/cuda; it comes with"
            " the CUDA toolkit, and as the wheel nvidia-cuda-sanitizer-api"
        )
    return None


def _incomplete(found: list[dict[str, Any]]) -> Iterator[str]:
    for entry in found:
        for each in entry["runs"]:
            if each["status"] == look.INCOMPLETE:
                yield f"{entry['name']} {each['tool']}: {each['reason']}"
