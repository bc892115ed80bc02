"""The correctness document of a cell, read into values: candidates, checks, known defects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinproof.matrix.matrixfile import Policy

PASS, UNSUPPORTED, NOT_RUN = "PASS", "UNSUPPORTED", "NOT-RUN"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question to a candidate, and what came of it.

    ``kind`` is "case", "repeats" or "identity"; ``features`` are what a candidate must support to
    be asked it; ``case`` holds the fields of the call that are not the default ones; ``findings``
    are sentences, the gravest first. ``infra`` says that the machine failed and not the candidate;
    ``defect`` is the id of the known defect that it shows, or None; ``absent`` what the candidate's
    build left out, which explains a refusal.
    """

    id: str
    kind: str
    status: str
    uses: frozenset[str]
    features: frozenset[str]
    case: Mapping[str, Any]
    stats: Mapping[str, Any]
    findings: tuple[str, ...]
    signal: str | None
    infra: bool
    defect: str | None
    absent: frozenset[str] = frozenset()

    @property
    def told(self) -> str:
        """The shortest proof that it gives: its signal, else its first finding."""
        return self.signal or next(iter(self.findings), self.status.lower())

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Check:
        """Read a check of the document."""
        return cls(
            id=raw["id"],
            kind=raw["kind"],
            status=raw["status"],
            uses=frozenset(raw["uses"]),
            features=frozenset(raw["features"]),
            case=raw["case"],
            stats=raw["stats"],
            findings=tuple(finding["text"] for finding in raw["findings"]),
            signal=raw["signal"],
            infra=raw["infra"],
            defect=raw["defect"],
            absent=frozenset(raw.get("absent", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Known:
    """A known defect that a candidate is said to have, and the ids of the checks that say so.

    ``shown`` are those that show it; where there are none, the ``passed`` that met its condition
    say that this version no longer has it.
    """

    id: str
    title: str
    upstream: str
    sees: str
    avoid: str
    shown: tuple[str, ...]
    passed: tuple[str, ...]

    def __str__(self) -> str:
        return f"known defect {self.id}, {self.upstream}"

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Known:
        """Read a known defect of the document."""
        words = {key: raw[key] for key in ("id", "title", "upstream", "sees", "avoid")}
        return cls(**words, shown=tuple(raw["cases"]), passed=tuple(raw["passed"]))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An attention that was checked; ``reason`` says why no check of it ran, where none did."""

    name: str
    version: str | None
    supports: frozenset[str]
    checks: tuple[Check, ...]
    known: tuple[Known, ...]
    available: bool
    reason: str | None

    def asked(self, policy: Policy, *, outside: bool = False) -> list[Check]:
        """Return the checks in (or `outside`) the policy's uses; no use named: all."""
        uses = frozenset(policy.uses) or frozenset({"everything"})
        return [check for check in self.checks if bool(uses & check.uses) is not outside]

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Candidate:
        """Read a candidate of the document."""
        return cls(
            name=raw["name"],
            version=raw["version"],
            supports=frozenset(raw["supports"]),
            checks=tuple(map(Check.parse, raw["cases"])),
            known=tuple(map(Known.parse, raw["defects"])),
            available=raw["available"],
            reason=raw["reason"],
        )


@dataclass(frozen=True, kw_only=True)
class Correctness:
    """A correctness document; where the stage left none, there is no candidate in it.

    ``harness`` is how our own kernel did, "" where nothing is known of that; ``votes`` the checks
    that it passed, ``failure`` the first that it did not.
    """

    harness: str = ""
    votes: int = 0
    failure: str = ""
    found: tuple[Candidate, ...] = ()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Those that were called, also one that could not be called any more later."""
        return tuple(item for item in self.found if item.available or item.checks)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Correctness:
        """Read the data of the stage's evidence; {} of a stage that left none."""
        if not data:
            return cls()
        harness = data["harness"]
        failures = [f"{first['case']}: {first['reason']}" for first in harness["failures"]]
        return cls(
            harness=harness["status"],
            votes=harness["cases"],
            failure=next(iter(failures), ""),
            found=tuple(map(Candidate.parse, data["candidates"])),
        )


def ended(checks: Iterable[Check], status: str) -> list[Check]:
    """Return the checks that ended as `status`."""
    return [check for check in checks if check.status == status]
