"""The kill matrix as rows, as a document and as tables of Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pinproof_cell.request import SCHEMA, BadRequestError
from pinproof_cell.world import device

KILLED, SURVIVED, INACTIVE = "killed", "SURVIVED", "inactive"
PASSED, REJECTED = "passed", "REJECTED"

#: Statuses that say nothing of a mutant: it refused, or the machine did.
SILENT = frozenset({"UNSUPPORTED", "NOT-RUN"})

_BLOCK = re.compile(r"(<!-- kill-matrix:begin -->\n).*?(<!-- kill-matrix:end -->)", re.DOTALL)


def row(facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a mutant's row of the matrix from its results in the order of the checks."""
    heard = [result for result in results if result["status"] not in SILENT]
    active = [result for result in heard if result["active"]]
    # What the suite says of an active mutant; of a control also where it is as the honest one.
    killing = [
        result
        for result in heard
        if result["status"] != "PASS" and (result["active"] or facts["control"])
    ]
    by = Counter(_by(result) for result in killing)
    statuses = Counter(result["status"] for result in killing)
    peaks = [result["stats"]["max_z"] for result in heard if "max_z" in result["stats"]]
    if facts["control"]:
        word = REJECTED if killing else PASSED
    elif not active:
        word = INACTIVE
    else:
        word = KILLED if killing else SURVIVED
    return {
        **facts,
        "result": word,
        "asked": len(heard),
        "active": len(active),
        "killed": len(killing),
        "by": dict(sorted(by.items(), key=lambda item: (-item[1], item[0]))),
        "statuses": dict(sorted(statuses.items())),
        "max_z": float(f"{max(peaks):.4g}") if peaks else None,
        "first": killing[0]["check"] if killing else None,
    }


def _by(result: Mapping[str, Any]) -> str:
    check, statistic = (result["findings"][0][key] for key in ("check", "statistic"))
    return statistic if check in ("output", "contract", "process") else f"{check} {statistic}"


def document(
    rows: Sequence[Mapping[str, Any]], rounds: Sequence[Sequence[str]], seconds: float
) -> dict[str, Any]:
    """Return the document of the verb: the rows, and what they come to."""
    broken = [row for row in rows if not row["control"]]
    families = {}
    for family in dict.fromkeys(row["family"] for row in broken):
        mine = [row for row in broken if row["family"] == family]
        families[family] = {
            "mutants": len(mine),
            "active": sum(row["active"] > 0 for row in mine),
            "killed": sum(row["result"] == KILLED for row in mine),
        }
    machine = device.facts("cpu")
    return {
        "schema": SCHEMA,
        "stage": "mutants",
        "machine": {name: machine[name] for name in ("name", "threads", "memory_gib")},
        "seconds": seconds,
        "rounds": [list(checks) for checks in rounds],
        "families": families,
        "survivors": [row["id"] for row in broken if row["result"] == SURVIVED],
        "inactive": [row["id"] for row in broken if row["result"] == INACTIVE],
        "rejected": [row["id"] for row in rows if row["result"] == REJECTED],
        "mutants": list(rows),
    }


def markdown(document: Mapping[str, Any]) -> str:
    """Return the kill matrix as tables of Markdown, and one line that sums it up."""
    parts = []
    families = dict.fromkeys(row["family"] for row in document["mutants"])
    for family in families:
        rows = [row for row in document["mutants"] if row["family"] == family]
        parts += [f"### {family[0].upper()}{family[1:]}\n", *map(_line, [_HEAD, _RULE])]
        parts += [_line(_cells(row)) for row in rows]
        parts.append("")
    return "\n".join([*parts, summary(document)])


def summary(document: Mapping[str, Any]) -> str:
    """Return one paragraph: how many are killed, and every hole by name."""
    counts = document["families"].values()
    active, killed = (sum(count[key] for count in counts) for key in ("active", "killed"))
    controls = [row for row in document["mutants"] if row["control"]]
    lines = [
        f"{killed} of {active} active mutants killed, "
        f"{len(document['rejected'])} of {len(controls)} controls rejected, "
        f"{sum(map(len, document['rounds']))} checks, {document['seconds']:.0f} s."
    ]
    for key, told in (
        ("survivors", "Survived"),
        ("inactive", "Inactive, no check wakes them"),
        ("rejected", "Controls rejected"),
    ):
        if document[key]:
            lines.append(f"{told}: {', '.join(f'`{name}`' for name in document[key])}.")
    return "\n".join(lines)


_HEAD = ("mutant", "bug", "stands for", "active", "killed", "by", "max z", "first killing check")
_RULE = ("---", "---", "---", "---:", "---:", "---", "---:", "---")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    by = next(iter(row["by"]), "")
    killed = f"{row['killed']}" if row["result"] in (KILLED, PASSED) else row["result"]
    peak = "" if row["max_z"] is None else f"{row['max_z']:.3g}"
    return (
        f"`{row['id']}`",
        row["bug"],
        row["stands_for"],
        f"{row['active']} of {row['asked']}",
        killed,
        by,
        peak,
        row["first"] or "",
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def check_page(path: Path) -> None:
    """Raise BadRequestError for a page that `documented` has no place in."""
    try:
        page = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{path} cannot be read as a page: {error}") from None
    _check_marks(page)


def documented(page: str, document: Mapping[str, Any]) -> str:
    """Return `page` with the matrix between its marks. Raises BadRequestError without any."""
    _check_marks(page)
    return _BLOCK.sub(lambda match: f"{match[1]}\n{markdown(document)}\n\n{match[2]}", page)


def _check_marks(page: str) -> None:
    if not _BLOCK.search(page):
        raise BadRequestError("the page has no marks <!-- kill-matrix:begin --> and :end")
