"""Failures that have one cause: the same signature, and the same features in the smallest case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pinproof_cell.fuzz.shrink import TYPES, stripped
from pinproof_cell.suite.cases import Case

#: What nobody may call a failure.
FINE = frozenset({"PASS", "UNSUPPORTED", "NOT-RUN"})
#: Ends of a process: each costs a fresh one.
DEADLY = frozenset({"CRASH", "HANG"})
#: What every smallest case has where nothing forbids it.
PLAIN = TYPES | {"page-16"}


@dataclass(frozen=True, order=True)
class Signature:
    """How a case fails: its status, the check and the statistic, or the signal."""

    status: str
    check: str
    statistic: str

    def __str__(self) -> str:
        return f"{self.status} {self.check} {self.statistic}"


@dataclass(frozen=True)
class Answer:
    """What a child said of a case; a finding is a dict as `judge.findings` documents it."""

    status: str
    findings: tuple[Mapping[str, Any], ...] = ()
    signal: str | None = None
    stats: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether this is a finding."""
        return self.status not in FINE

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The signatures of all that is wrong, the gravest first."""
        if self.signal:
            return (Signature(self.status, "process", self.signal),)
        return tuple(
            Signature(self.status, found["check"], found["statistic"]) for found in self.findings
        )

    @property
    def text(self) -> str:
        """The gravest finding in words."""
        return str(self.findings[0]["text"]) if self.findings else self.status

    def of(self, signature: Signature) -> Mapping[str, Any]:
        """Return the finding of `signature`."""
        return self.findings[self.signatures.index(signature)]


@dataclass
class Group:
    """One cause: its smallest case, and how often it was met.

    ``features`` are what the smallest case has, but for its type; ``first`` is the number of the
    case that found it; ``skipped`` counts cases that were not run because they would end the
    process once more. ``defect`` is the known defect's id, or None. ``shows`` says if the script
    shows the failure by itself; None where it failed itself, of ``script_error``.
    """

    signature: Signature
    case: Case
    answer: Answer
    first: int
    found: Case
    count: int = 1
    skipped: int = 0
    defect: str | None = None
    script: str | None = None
    shows: bool | None = None
    script_error: str | None = None
    others: set[Signature] = field(default_factory=set)

    @property
    def features(self) -> frozenset[str]:
        """What the failure needs."""
        return self.case.features - PLAIN

    @property
    def cause(self) -> tuple[str, str, frozenset[str]]:
        """What one group has alone."""
        return self.signature.status, self.signature.check, self.features

    def may_explain(self, case: Case, signatures: Iterable[Signature]) -> Case | None:
        """Return the case that must fail too if this is the cause of `case`, or None.

        It is `case` without whatever the cause does not need.
        """
        if not self.alike(signatures) or not self.features <= case.features:
            return None
        return stripped(case, self.features)

    def alike(self, signatures: Iterable[Signature]) -> bool:
        """Return whether one of `signatures` says what this group's says."""
        own = (self.signature.status, self.signature.check)
        return any((one.status, one.check) == own for one in signatures)


class Groups:
    """The causes found so far."""

    def __init__(self) -> None:
        self.all: list[Group] = []

    def add(self, group: Group) -> Group:
        """Add `group`, or count it to the one of the same cause; returns where it went."""
        for known in self.all:
            if known.cause == group.cause:
                known.count += group.count
                known.others.add(group.signature)
                return known
        self.all.append(group)
        return group

    def explained(self, case: Case, answer: Answer, ask: Callable[[Case], Answer]) -> Group | None:
        """Return the group that `case` belongs to, or None; `ask` answers for a simpler case."""
        for group in self.all:
            simpler = group.may_explain(case, answer.signatures)
            if simpler is None:
                continue
            again = answer if simpler == case else ask(simpler)
            if group.alike(again.signatures):
                return group
        return None

    def settle(self, ask: Callable[[Case], Answer]) -> None:
        """Put groups together that were found before the simpler cause behind both was."""
        for group in sorted(self.all, key=lambda group: -len(group.features)):
            for other in self.all:
                if other is group or not other.features < group.features:
                    continue
                simpler = other.may_explain(group.case, [group.signature])
                if simpler is not None and other.alike(ask(simpler).signatures):
                    other.count += group.count
                    other.skipped += group.skipped
                    self.all.remove(group)
                    break

    def sorted(self) -> list[Group]:
        """Return the groups, those of no known defect first, then the gravest."""
        order = ("CRASH", "HANG", "FAIL", "ERROR", "FLAKY", "DEGRADED")
        return sorted(
            self.all,
            key=lambda group: (
                group.defect is not None,
                order.index(group.signature.status),
                -group.count,
            ),
        )

    def deadly(self, case: Case) -> Group | None:
        """Return the cause for which `case` would end its process, where it has features."""
        for group in self.all:
            deadly = group.signature.status in DEADLY
            if deadly and group.features and group.features <= case.features:
                return group
        return None
