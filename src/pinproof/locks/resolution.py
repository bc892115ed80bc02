"""What resolving a request came to: a lock, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pinproof.locks import lock as locks
from pinproof.locks.lock import Lock, Pin


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """A lock, what a user should know of it, and how it came about.

    ``download`` is the size of its files in bytes as far as the index tells it, ``sources`` the
    source archives of what is to be built.
    """

    lock: Lock
    notes: tuple[str, ...] = ()
    log: str = ""
    download: int = 0
    sources: tuple[Pin, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the resolution as JSON values, the lock as its text."""
        lists = {"notes": list(self.notes), "sources": [asdict(each) for each in self.sources]}
        return {**asdict(self), **lists, "lock": self.lock.text()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Resolution:
        """Read what `to_json` wrote. Raises ConfigurationError for a damaged lock."""
        sources = tuple(Pin(**each) for each in raw.get("sources", ()))
        read = {"notes": tuple(raw["notes"]), "lock": locks.parse(raw["lock"]), "sources": sources}
        return cls(**{**raw, **read})
