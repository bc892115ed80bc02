"""What compute-sanitizer saw of the candidates of a cell, and what that claims. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pinproof.judge.verdict import Claim, Verdict


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """What one tool found in a candidate, in the tool's words, with its kernel and address.

    ``calls`` are the cases that show it; a ``warning`` may be intended, and claims nothing.
    """

    candidate: str
    tool: str
    text: str
    calls: tuple[str, ...]
    warning: bool

    def __str__(self) -> str:
        more = f" and {len(self.calls) - 1} more" if len(self.calls) > 1 else ""
        where = f" (in {self.calls[0]}{more})" if self.calls else ""
        return f"{self.candidate} under {self.tool}: {self.text}{where}"


@dataclass(frozen=True, kw_only=True)
class Sanitized:
    """A sanitize document: the tool's version, clean runs, hazards, and what was not seen."""

    version: str
    clean: tuple[str, ...]
    hazards: tuple[Hazard, ...]
    unseen: tuple[str, ...]


def read(data: Mapping[str, Any]) -> Sanitized | None:
    """Return the document of the stage, None where it left none."""
    if not data:
        return None
    runs = [(entry["name"], run) for entry in data["candidates"] for run in entry["runs"]]
    return Sanitized(
        version=data["tool"] or "",
        clean=tuple(f"{name} {run['tool']}" for name, run in runs if run["status"] == "CLEAN"),
        hazards=tuple(
            Hazard(
                candidate=name,
                tool=run["tool"],
                text=hazard["text"],
                calls=tuple(hazard["calls"]),
                warning=hazard["warning"],
            )
            for name, run in runs
            for hazard in run["hazards"]
        ),
        unseen=tuple(data["incomplete"]),
    )


def claims(seen: Sanitized | None) -> Iterator[Claim]:
    """Claim from hazards, and from what could not be looked at: that is never clean."""
    if seen is None:
        return
    for hazard in seen.hazards:
        if not hazard.warning:
            yield Verdict.UNSAFE, str(hazard)
    for reason in seen.unseen:
        yield Verdict.UNVERIFIED, f"sanitize: {reason}"
    known = any(not hazard.warning for hazard in seen.hazards)
    if not (seen.clean or known or seen.unseen):
        yield Verdict.UNVERIFIED, "sanitize: no candidate could be looked at"


def summary(seen: Sanitized | None) -> str:
    """Say behind the numbers of a SAFE cell that the sanitizer found nothing."""
    if seen is None or not seen.clean:
        return ""
    runs = f"{len(seen.clean)} run{'s' if len(seen.clean) > 1 else ''}"
    return f"; {runs} of compute-sanitizer clean"
