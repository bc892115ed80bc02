"""A claim that is measured: what was asked, what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One number. ``held`` is the verdict; ``data`` holds what the number was made of."""

    name: str
    asked: str
    seen: str
    held: bool
    data: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        verdict = "held" if self.held else "MISSED"
        return f"{verdict:<7} {self.name:<12} asked {self.asked}\n{'':<20} seen  {self.seen}"

    def to_json(self) -> dict[str, Any]:
        """Return the claim as JSON values."""
        return asdict(self)


def median(values: list[float]) -> float:
    """Return the middle value, of an even count the lower of the two: a time that was seen."""
    return sorted(values)[(len(values) - 1) // 2]
