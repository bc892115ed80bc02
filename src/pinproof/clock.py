"""What time it is, as evidence, locks and records of builds write it down."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal


def now(to: Literal["milliseconds", "seconds"] = "milliseconds") -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec=to)
