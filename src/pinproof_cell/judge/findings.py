"""Name what a judgement says: the check that failed, its statistic, value and limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: How a reason of the judge begins -> (check, statistic).
_BEGINNINGS = (
    ("max|z|", "output", "max_z"),
    ("row RMS", "output", "row_rms"),
    ("RMS", "output", "rms"),
    ("|bias|", "output", "bias"),
    ("|beta|", "output", "beta"),
    ("log-sum-exp error", "lse", "lse_error"),
    ("log-sum-exp of rows without keys", "lse", "lse_on_empty_rows"),
    ("log-sum-exp is not finite", "lse", "non_finite"),
    ("log-sum-exp", "lse", "lse_missing"),
    ("the log-sum-exp", "lse", "lse_missing"),
    ("output is", "contract", "shape"),
    ("three runs", "determinism", "repeats"),
    ("call ", "determinism", "repeats"),
    ("not run", "process", "not_run"),
)


def findings(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is wrong with one case's result, an entry per reason, the gravest first."""
    return [_finding(case, reason) for reason in case["reasons"]]


def _finding(case: Mapping[str, Any], reason: str) -> dict[str, Any]:
    check, statistic, text = classify(case["status"], reason)
    _, _, limit = text.rpartition(" > ")
    return {
        "check": check,
        "case": case["id"],
        "status": case["status"],
        "statistic": statistic,
        "value": case["stats"].get(statistic),
        "limit": _number(limit) if " > " in text else None,
        "reason": text,
    }


def classify(status: str, reason: str) -> tuple[str, str, str]:
    """Return check, statistic and text of one reason of a case with this status."""
    if status in ("CRASH", "HANG"):
        return "process", status.lower(), reason
    if reason.startswith("AnswerError: "):
        name, _, text = reason.removeprefix("AnswerError: ").partition(": ")
        return "contract", name, text
    if "outputs are" in reason:
        return "output", "non_finite", reason
    for beginning, check, statistic in _BEGINNINGS:
        if reason.startswith(beginning):
            return check, statistic, reason
    return "call", "raises", reason


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
