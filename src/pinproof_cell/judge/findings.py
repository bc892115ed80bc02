"""What is wrong with an answer, in one piece: which statistic, its value, its limit, and words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    ``check`` is what was looked at: "output", "lse", "gradient", "dropout", "identity", "contract",
    "determinism", "call", "process", "harness". ``value`` and ``limit`` are None where nothing was
    measured; ``text`` is a line for a person.
    """

    check: str
    statistic: str
    text: str
    value: float | None = None
    limit: float | None = None

    def document(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return asdict(self)


def above(check: str, statistic: str, words: str, value: float, limit: float) -> Finding:
    """Return the finding that `value` is above `limit`; `words` are the statistic for a person."""
    return Finding(check, statistic, f"{words} {value:.3g} > {limit:.3g}", value, limit)
