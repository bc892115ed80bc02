"""The limits of the judge: from a data file that names the machine that calibrated each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("thresholds.json")


@dataclass(frozen=True)
class Thresholds:
    """From which value of each statistic a kernel FAILs, or is DEGRADED; ``source`` says whose."""

    target: str
    source: str
    fail: Mapping[str, float]
    degraded: Mapping[str, float]
    backward_fail: Mapping[str, float]
    backward_degraded: Mapping[str, float]
    lse_absolute: float
    lse_relative: float
    fa_absolute: float


def load(target: str) -> Thresholds:
    """Return the limits for `target`, such as "sm_90" or "cpu".

    A target that nobody calibrated takes the smallest of the known limits, and says so.
    """
    data: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    known: dict[str, dict[str, Any]] = data["architectures"]
    if target in known:
        chosen, source = [known[target]], known[target]["machine"]
    else:
        chosen = list(known.values())
        source = f"{target} is not calibrated: the most careful of {', '.join(sorted(known))}"
    return Thresholds(
        target=target,
        source=source,
        fail=_smallest([entry["fail"] for entry in chosen]),
        degraded=_smallest([entry["degraded"] for entry in chosen]),
        backward_fail=_smallest([entry["backward"]["fail"] for entry in chosen]),
        backward_degraded=_smallest([entry["backward"]["degraded"] for entry in chosen]),
        lse_absolute=data["lse"]["absolute"],
        lse_relative=data["lse"]["relative"],
        fa_absolute=data["fa_ratio"]["absolute"],
    )


def _smallest(tables: list[dict[str, float]]) -> dict[str, float]:
    return {name: min(table[name] for table in tables) for name in tables[0]}
