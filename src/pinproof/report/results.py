"""What a run found, as one document: results.json, described by data/results.schema.json."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinproof import __version__
from pinproof.errors import ConfigurationError
from pinproof.evidence import store
from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.judge.judgement import Carried, Judgement
from pinproof.judge.sanitized import Sanitized
from pinproof.judge.triage import plain
from pinproof.judge.verdict import Verdict
from pinproof.plan.stage import Stage

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell, what was judged of it, and the evidence that the judgement read."""

    cell: Cell
    judgement: Judgement
    evidence: Mapping[Stage, Evidence]
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a matrix.

    ``policy`` holds require, uses and min_throughput as JSON values; ``machine`` is
    `Machine.facts`; ``targets`` are all those that the matrix file names; ``logs`` says where
    the logs lie, in the words that the user should see; times are ISO 8601.
    """

    matrix: str
    rows: Sequence[Row]
    policy: Mapping[str, Any]
    checks: Sequence[str]
    machine: Mapping[str, str]
    targets: Sequence[str]
    started: str
    finished: str
    exit_code: int
    logs: str


def document(run: Run) -> dict[str, Any]:
    """Return the results document, JSON values as results.schema.json describes them."""
    ran = [row for row in run.rows if row.judgement.ran]
    seen = {row.cell.target for row in ran}
    verdicts = Counter(row.judgement.verdict for row in run.rows)
    return {
        "schema": SCHEMA,
        "pinproof": __version__,
        "matrix": run.matrix,
        "started": run.started,
        "finished": run.finished,
        "exit_code": int(run.exit_code),
        "machine": dict(run.machine),
        "policy": dict(run.policy),
        "checks": list(map(str, run.checks)),
        "run_on": sorted({place for row in ran for place in _places(row.evidence)}),
        "not_run": [target for target in run.targets if target not in seen],
        "counts": {str(verdict): verdicts[verdict] for verdict in Verdict if verdicts[verdict]},
        "logs": run.logs,
        "cells": [_cell(row) for row in run.rows],
    }


def _cell(row: Row) -> dict[str, Any]:
    judged, exclusion = row.judgement, row.cell.exclusion
    return {
        "id": row.cell.id,
        "target": row.cell.target,
        "axes": dict(row.cell.axes),
        "required": row.required,
        "verdict": str(judged.verdict),
        "reason": plain(judged.reason),
        "limits": [plain(limit) for limit in judged.limits],
        "defects": [defect(each) for each in judged.defects],
        "sanitizer": sanitizer(judged.sanitizer),
        "worst_z": _number(judged.worst_z),
        "throughput": None
        if judged.ratio is None
        else {
            "candidate": judged.fastest,
            "baseline": judged.baseline,
            "ratio": _number(judged.ratio),
            "low": _number(judged.low),
            "high": _number(judged.high),
        },
        "seconds": round(judged.seconds, 3),
        "exclusion": None
        if exclusion is None
        else {"rule": exclusion.rule, "reason": exclusion.reason, "source": exclusion.source},
        "evidence": [
            {
                "stage": str(record.stage),
                "outcome": str(record.outcome),
                "digest": record.digest,
                "started": record.started,
                "seconds": round(record.seconds, 3),
                "log": record.log,
            }
            for record in row.evidence.values()
        ],
    }


def defect(carried: Carried) -> dict[str, Any]:
    """Return a known defect of a candidate, and the checks that spoke of it, as JSON values."""
    known = carried.known
    return {
        "id": known.id,
        "candidate": carried.candidate,
        "version": carried.version,
        "title": known.title,
        "upstream": known.upstream,
        "sees": known.sees,
        "avoid": known.avoid,
        "shown": list(known.shown),
        "passed": list(known.passed),
    }


def sanitizer(seen: Sanitized | None) -> dict[str, Any] | None:
    """Return what compute-sanitizer saw of a cell as JSON values, None where it did not run."""
    if seen is None:
        return None
    hazards = [
        {**asdict(hazard), "calls": list(hazard.calls), "text": plain(hazard.text)}
        for hazard in seen.hazards
    ]
    return {
        "version": seen.version,
        "clean": list(seen.clean),
        "hazards": hazards,
        "unseen": list(seen.unseen),
    }


def _number(value: float | None) -> float | str | None:
    """Return a JSON number; JSON has no infinity, so that becomes the word."""
    if value is None or math.isfinite(value):
        return None if value is None else float(f"{value:.6g}")
    return "inf"


def _places(evidence: Mapping[Stage, Evidence]) -> Iterator[str]:
    """Yield on what the candidates of a cell were really called."""
    for stage, record in evidence.items():
        if stage.needs_target and record.outcome is Outcome.OK:
            machine = record.machine
            if machine.get("gpu"):
                yield f"{machine['gpu']}, {machine['target']}, driver {machine['driver']}"
            else:
                yield f"{machine.get('cpu', 'an unknown processor')}, cpu"


def read(path: Path, *, run: str = "nox -s matrix") -> dict[str, Any]:
    """Return the results document in `path`, which the command `run` writes.

    Raises ConfigurationError where there is none, or one of another schema.
    """
    if not path.exists():
        raise ConfigurationError(
            f"there is no results document yet: {path}", remedy=f"run `{run}` first"
        )
    document = store.read_json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ConfigurationError(
            f"{path} is no results document of schema {SCHEMA}",
            cause="it is damaged, or another version of Pinproof has written it",
            remedy=f"run `{run}` again",
        )
    return document
