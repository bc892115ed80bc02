"""Everything that is known of one cell, for a person who asks why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pinproof.matrix import matrixfile, rules
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Matrix
from pinproof.report import results
from pinproof.report.results import Row


def cell_document(cell: Cell) -> dict[str, Any]:
    """Return a cell as JSON values."""
    excluded = cell.exclusion
    return {
        "id": cell.id,
        "matrix": cell.matrix,
        "target": cell.target,
        "label": cell.label,
        "axes": dict(cell.axes),
        "excluded": None
        if excluded is None
        else {"rule": excluded.rule, "reason": excluded.reason, "source": excluded.source},
    }


def document(row: Row, matrix: Matrix, logs: Path) -> dict[str, Any]:
    """Return what is known of the cell in `row`, schema 1; `logs` is what log paths lie under."""
    cell, judged, found = row.cell, row.judgement, row.evidence
    settings = matrixfile.settings(matrix, cell)
    return {
        "schema": 1,
        **cell_document(cell),
        "required": row.required,
        "back_end": settings.backend,
        "conda": settings.conda if settings.backend == "conda" else "",
        "environment": dict(settings.env),
        "rule_requirements": list(rules.shipped().requirements(cell)),
        "uses": list(matrix.policy.uses),
        "verdict": str(judged.verdict),
        "reason": judged.reason,
        "limits": list(judged.limits),
        "defects": [results.defect(each) for each in judged.defects],
        "sanitizer": results.sanitizer(judged.sanitizer),
        "evidence": [
            {
                "stage": str(stage),
                "outcome": str(record.outcome),
                "reason": record.reason,
                "digest": record.digest,
                "started": record.started,
                "seconds": record.seconds,
                "machine": dict(record.machine),
                "log": str(logs / record.log) if record.log else "",
            }
            for stage, record in found.items()
        ],
    }


def text(found: Mapping[str, Any]) -> str:
    """Return `document` as a person reads it."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['id']}  {found['label']}"
    yield f"  matrix     {found['matrix']}, target {found['target']}"
    yield f"  verdict    {found['verdict']}: {found['reason']}"
    for limit in found["limits"]:
        yield f"  limit      {limit}"
    for known in found["defects"]:
        seen = f"shown by {known['shown'][0]}" if known["shown"] else "not shown any more"
        yield f"  defect     {known['candidate']}: {known['id']}, {known['upstream']}; {seen}"
    if seen := found["sanitizer"]:
        yield f"  sanitizer  {seen['version'] or 'not there'}: {len(seen['clean'])} runs clean"
        for hazard in seen["hazards"]:
            kind = "warning" if hazard["warning"] else "hazard"
            yield f"  {kind:<10} {hazard['candidate']} under {hazard['tool']}: {hazard['text']}"
        yield from (f"  not seen   {reason}" for reason in seen["unseen"])
    if found["excluded"]:
        yield f"  source     {found['excluded']['source']}"
    yield f"  required   {'yes' if found['required'] else 'no'}, for {', '.join(found['uses'])}"
    yield f"  back end   {found['back_end']} {found['conda']}".rstrip()
    for name, value in found["environment"].items():
        yield f"  variable   {name}={value}"
    for requirement in found["rule_requirements"]:
        yield f"  rule asks  {requirement}"
    for record in found["evidence"]:
        yield (
            f"  {record['stage']:<12} {record['outcome']:<9} {record['seconds']:8.1f} s"
            f"  {record['started'][:19]}  {record['digest'][:16]}  {record['log']}"
        )
        if record["reason"]:
            yield f"    {record['reason']}"
    if not found["evidence"] and not found["excluded"]:
        yield "  no evidence yet: run `nox -s matrix`, or this cell alone"
