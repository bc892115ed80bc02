"""Known defects of the kernels under test: a data file, and what a finished check says of them.

A defect has a condition over the case (what to call to meet it) and a symptom (what is then seen).
It is expected strictly: a check that meets the condition and passes says that it is gone.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinproof_cell.judge.conditions import Condition, Outcome, frozen
from pinproof_cell.judge.ranges import Range, version
from pinproof_cell.suite.cases import Case

DATA = Path(__file__).with_name("defects.toml")

#: What a symptom can be; UNSUPPORTED says nothing of a defect.
STATUSES = frozenset({"PASS", "DEGRADED", "FAIL", "FLAKY", "CRASH", "HANG", "ERROR"})

_WORDS = ("id", "title", "upstream", "since", "sees", "avoid")
#: The other keys of an entry with the kind of each; the last two may be left out.
_KINDS: dict[str, type] = {
    "candidates": dict,
    "case": list,
    "smallest": dict,
    "shows": list,
    "targets": list,
    "surely": dict,
}
_NEEDED = (*_WORDS, "candidates", "case", "smallest", "shows")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was asked: a candidate, its version, the target that it ran on.

    ``lse_on_empty_rows`` is what it says that it writes for a query without keys.
    """

    candidate: str
    version: str | None
    target: str
    lse_on_empty_rows: float


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """What is seen of a defect: one of ``status``, and of the rest whatever is named.

    ``check`` and ``statistic`` are those of a finding. ``lse_on_empty_rows`` is a defect that the
    candidate declares: every check that it passes by that convention shows it.
    """

    status: tuple[str, ...]
    signal: str | None = None
    check: str | None = None
    statistic: str | None = None
    lse_on_empty_rows: float | None = None

    def fits(self, subject: Subject, outcome: Outcome) -> bool:
        """Say if `outcome` is of its kind, whatever the findings are."""
        return (
            outcome.status in self.status
            and self.lse_on_empty_rows in (None, subject.lse_on_empty_rows)
            and self.signal in (None, outcome.signal)
        )

    def explains(self, finding: Mapping[str, Any]) -> bool:
        """Say if that finding is one of it."""
        return self.check in (None, finding.get("check")) and self.statistic in (
            None,
            finding.get("statistic"),
        )


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One known defect.

    ``upstream`` is where it is followed, as bare text; ``since`` when it came; ``sees`` what a user
    sees; ``avoid`` completes "do not call with". ``candidates`` are those that have it, each with
    the versions of the package that brings it; ``targets`` where it shows, none for everywhere.
    ``conditions`` are where it may show, any one of them, and ``surely`` where, within that, it
    must. ``smallest`` is the smallest case that shows it.
    """

    id: str
    title: str
    upstream: str
    since: str
    sees: str
    avoid: str
    candidates: Mapping[str, Range]
    targets: tuple[str, ...]
    conditions: tuple[Condition, ...]
    surely: Condition
    symptoms: tuple[Symptom, ...]
    smallest: Case

    def concerns(self, subject: Subject) -> bool:
        """Say if that candidate, in that version, on that target, is said to have it."""
        versions = self.candidates.get(subject.candidate)
        if versions is None or (self.targets and subject.target not in self.targets):
            return False
        if not versions.clauses:
            return True
        return subject.version is not None and versions.holds(subject.version)

    def examples(self) -> Iterator[Outcome]:
        """Yield what the smallest case may be asked as: itself, or by an identity of its own."""
        named = {None}.union(*(condition.identity for condition in self.conditions))
        for name in sorted(named, key=str):
            kind = "identity" if name else "case"
            yield Outcome(case=self.smallest, status="FAIL", findings=(), kind=kind, identity=name)

    def meets(self, outcome: Outcome) -> bool:
        """Say if the call of `outcome` is one where it may show."""
        return any(condition.holds(outcome) for condition in self.conditions)

    def shown(self, subject: Subject, outcome: Outcome) -> bool:
        """Say if what a check of that candidate came to shows it, and nothing else."""
        fitting = [symptom for symptom in self.symptoms if symptom.fits(subject, outcome)]
        # Without a finding only a symptom that asks for none can be seen.
        found = outcome.findings or ({},)
        return (
            self.concerns(subject)
            and self.meets(outcome)
            and all(any(symptom.explains(each) for symptom in fitting) for each in found)
        )

    def missed(self, subject: Subject, outcome: Outcome) -> bool:
        """Say if a check met the condition and passed: the defect is gone.

        Of an identity only where `surely` names it: most hold for wrong numbers too.
        """
        return (
            (outcome.kind == "case" or outcome.identity in self.surely.identity)
            and outcome.status == "PASS"
            and self.concerns(subject)
            and self.meets(outcome)
            and self.surely.holds(outcome)
            and not self.shown(subject, outcome)
        )


def name_of(subject: Subject, outcome: Outcome) -> str | None:
    """Return the id of the known defect that `outcome` shows, or None."""
    return next((known.id for known in load() if known.shown(subject, outcome)), None)


def account(subject: Subject, checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what `checks` say of the defects that the candidate is said to have, as JSON values.

    ``cases`` are the ids of those that show it; where there are none, the ``passed`` that met its
    condition say that this version no longer has it. What no check says anything of is left out.
    """
    outcomes = {check["id"]: Outcome.read(check) for check in checks}
    found = []
    for known in load():
        cases = [name for name, outcome in outcomes.items() if known.shown(subject, outcome)]
        passed = [name for name, outcome in outcomes.items() if known.missed(subject, outcome)]
        if cases or passed:
            words = {word: getattr(known, word) for word in _WORDS}
            found.append({**words, "cases": cases, "passed": passed})
    return found


@functools.cache
def load(path: Path = DATA) -> tuple[Defect, ...]:
    """Return the known defects in `path`. Raises ValueError that names the entry at fault."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    entries = document.get("defect", [])
    found = tuple(parse(entry) for entry in entries)
    names = [known.id for known in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name}: there are two defects of that id")
    return found


def parse(entry: Mapping[str, Any]) -> Defect:
    """Return one entry of the file. Raises ValueError that names the entry and the key."""
    name = entry.get("id", "an entry without id")
    try:
        return _parsed(entry)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def _parsed(entry: Mapping[str, Any]) -> Defect:
    kinds = {**dict.fromkeys(_WORDS, str), **_KINDS}
    unknown = sorted(entry.keys() - kinds.keys())
    missing = [key for key in _NEEDED if not entry.get(key)]
    if unknown or missing:
        raise ValueError(f"unknown keys {unknown}, missing keys {missing}")
    if isinstance(entry["case"], dict):
        entry = {**entry, "case": [entry["case"]]}
    for key, value in entry.items():
        if not isinstance(value, kinds[key]):
            raise ValueError(f"{key} is {value!r}, not a {kinds[key].__name__}")
    defect = Defect(
        **{word: entry[word] for word in _WORDS},
        candidates={key: _versions(text) for key, text in entry["candidates"].items()},
        targets=tuple(entry.get("targets", ())),
        conditions=tuple(map(Condition.parse, entry["case"])),
        surely=Condition.parse(entry.get("surely", {})),
        symptoms=tuple(_symptom(table) for table in entry["shows"]),
        smallest=Case(**{key: frozen(value) for key, value in entry["smallest"].items()}),
    )
    if not any(defect.meets(outcome) for outcome in defect.examples()):
        raise ValueError("its smallest case does not meet its condition")
    return defect


def _versions(text: Any) -> Range:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a range of versions")
    return Range.parse(text, version)


def _symptom(table: Any) -> Symptom:
    status = tuple(table.get("status", ())) if isinstance(table, dict) else ()
    if not status or not STATUSES.issuperset(status):
        raise ValueError(f"status {list(status)} is not of {sorted(STATUSES)}")
    return Symptom(**{**table, "status": status})
