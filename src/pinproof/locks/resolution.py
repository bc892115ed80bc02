"""What resolving a request came to: a lock, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pinproof.locks import lock as locks
from pinproof.locks.lock import Lock


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """A lock, what a user should know of it, and how it came about.

    ``download`` is the size of its files in bytes as far as the index tells it.
    """

    lock: Lock
    notes: tuple[str, ...] = ()
    log: str = ""
    download: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the resolution as JSON values, the lock as its text."""
        return {**asdict(self), "notes": list(self.notes), "lock": self.lock.text()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Resolution:
        """Read what `to_json` wrote. Raises ConfigurationError for a damaged lock."""
        return cls(**{**raw, "notes": tuple(raw["notes"]), "lock": locks.parse(raw["lock"])})
