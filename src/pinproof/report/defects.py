"""The known defects of the kernels under test, as the cell's data file holds them."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

#: The cell reads it (`pinproof_cell.judge.defects`) and names what it sees by it; here it is shown.
DATA = Path(__file__).parents[2] / "pinproof_cell" / "judge" / "defects.toml"


def document() -> dict[str, Any]:
    """Return every known defect, JSON values, schema 1; infinities are words."""
    entries = tomllib.loads(DATA.read_text(encoding="utf-8"))["defect"]
    return {"schema": 1, "defects": [_plain(entry) for entry in entries]}


def text(found: Mapping[str, Any]) -> str:
    """Return `document` as a person reads it."""
    return "\n".join(line for entry in found["defects"] for line in _lines(entry))


def _lines(entry: Mapping[str, Any]) -> Iterator[str]:
    yield f"{entry['id']}  {entry['title']}"
    for name, value in facts(entry).items():
        yield f"  {name:<12} {value}"
    yield ""


def facts(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of one defect, by what it is, in words."""
    carriers = entry["candidates"].items()
    return {
        "upstream": entry["upstream"],
        "candidates": ", ".join(f"{name} {versions or '(any)'}" for name, versions in carriers),
        "targets": ", ".join(entry.get("targets", ())) or "all",
        "since": entry["since"],
        "do not call": f"with {entry['avoid']}",
        "seen": entry["sees"],
        "where": _anyof(entry["case"]),
        **({"surely where": _condition(entry["surely"])} if "surely" in entry else {}),
        "smallest": ", ".join(f"{name} = {value}" for name, value in entry["smallest"].items()),
    }


def _anyof(case: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    tables = [case] if isinstance(case, Mapping) else case
    return "; or ".join(map(_condition, tables))


def _condition(table: Mapping[str, Any]) -> str:
    parts = []
    for name, value in table.items():
        words = " or ".join(map(str, value)) if isinstance(value, list) else str(value)
        match name:
            case "features":
                parts.append(" and ".join(value))
            case "without":
                parts.append(f"not {words}")
            case _:
                parts.append(f"{name} {words}")
    return ", ".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
