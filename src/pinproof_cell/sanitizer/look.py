"""One candidate under each tool: its hazards, each with the calls in which it shows.

A hazard found among several calls is looked for again in each of them alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pinproof_cell.sanitizer import tool as sanitizers
from pinproof_cell.sanitizer import unwritten
from pinproof_cell.sanitizer.calls import CALLS
from pinproof_cell.sanitizer.misread import weighed
from pinproof_cell.sanitizer.program import RAN, REFUSED, stood
from pinproof_cell.sanitizer.report import Hazard, Report
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

CLEAN, HAZARD, INCOMPLETE, UNSUPPORTED = "CLEAN", "HAZARD", "INCOMPLETE", "UNSUPPORTED"
#: The tool told of nothing but what it is known to misread: that is no hazard, and not clean.
UNCLEAR = "UNCLEAR"

#: How long one tool may take over all calls of a candidate, in seconds; most end within a minute.
#: A run that has not loaded the candidate by then is made once more.
LIMIT = 300.0
#: How many lines in unknown words are kept of a run: enough to look them up.
UNKNOWN = 3


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is looked at, and with what: a candidate on a target, `program` of compute-sanitizer."""

    candidate: str
    target: str
    program: Path
    seed: int = 0
    limit: float = LIMIT


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One run of one tool: the calls that ran, what was found, what kept it from its end.

    ``unknown`` are the first UNKNOWN lines of the tool in words that are not known.
    """

    calls: tuple[str, ...]
    hazards: tuple[Hazard, ...]
    reason: str | None
    session: Mapping[str, Any]
    unknown: tuple[str, ...] = ()
    tries: int = 1

    @property
    def errors(self) -> tuple[Hazard, ...]:
        """The hazards that nobody can have intended."""
        return tuple(hazard for hazard in self.hazards if not hazard.warning)

    def shows(self, hazard: Hazard) -> bool:
        """Say if it was found here too, at whatever address."""
        return any(
            (one.what, one.kernel, one.where) == (hazard.what, hazard.kernel, hazard.where)
            for one in self.hazards
        )


def at(subject: Subject) -> dict[str, Any]:
    """Return the entry of one candidate: a run for each tool; none where it cannot be called."""
    entry: dict[str, Any] = {"name": subject.candidate, "runs": []}
    with tempfile.TemporaryDirectory(prefix="pinproof-") as scratch:
        for tool in sanitizers.TOOLS:
            found, session = _under(subject, tool, Path(scratch))
            entry |= {key: session.get(key) for key in ("version", "device", "reason")}
            if entry["reason"]:
                return entry | {"runs": []}
            entry["runs"].append(found)
            print(f"sanitize {subject.candidate} {_line(found)}", flush=True)
    return entry


def _under(subject: Subject, tool: str, scratch: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Look with one tool at all calls; then at each alone, where it found something."""
    started = time.monotonic()
    seen = _once(subject, tool, [case.id for case in CALLS], scratch)
    alone = {}
    if seen.errors and len(seen.calls) > 1:
        alone = {name: _once(subject, tool, [name], scratch) for name in seen.calls}
    if tool == "initcheck" and any(map(unwritten.is_of_torch, seen.errors)):
        seen = _made_again(subject, seen, scratch)
    status = HAZARD if seen.errors else INCOMPLETE if seen.reason else CLEAN
    if status == CLEAN and not seen.calls:
        status = UNSUPPORTED
    if status == CLEAN and any(hazard.note for hazard in seen.hazards):
        status = UNCLEAR
    found = {
        "tool": tool,
        "status": status,
        "calls": list(seen.calls),
        "hazards": [
            {**asdict(hazard), "text": str(hazard), "calls": _calls(hazard, seen, alone)}
            for hazard in seen.hazards
        ],
        "unknown": list(seen.unknown),
        "reason": seen.reason,
        "tries": seen.tries,
        "seconds": round(time.monotonic() - started, 1),
    }
    return found, seen.session


def _calls(hazard: Hazard, seen: Seen, alone: Mapping[str, Seen]) -> list[str]:
    """Return the calls that show a hazard; all of them where none does alone."""
    return [name for name, other in alone.items() if other.shows(hazard)] or list(seen.calls)


def _made_again(subject: Subject, seen: Seen, scratch: Path) -> Seen:
    """Return `seen` with those of its hazards weighed that lie in our own reading of an answer.

    What we read may hide what the candidate reads, so the tool looks once more at all calls while
    nobody reads an answer: what it then finds is the candidate's own, is added, and is not weighed.
    """
    unread = _once(subject, "initcheck", seen.calls, scratch, "--unread")
    if unread.reason or unread.calls != seen.calls:
        why = f"not put to the test: {unread.reason or 'other calls ran'} while nobody read"
        return replace(seen, hazards=tuple(_noted(hazard, why) for hazard in seen.hazards))
    again = {
        name: unwritten.look(
            subject.candidate, name, target=subject.target, seed=subject.seed, scratch=scratch
        )
        for name in seen.calls
    }
    weighed_here = (
        _noted(hazard, "found while nobody read an answer too")
        if unread.shows(hazard)
        else unwritten.weighed(hazard, again)
        for hazard in seen.hazards
    )
    more = (
        _noted(hazard, "found while nobody read an answer")
        for hazard in unread.hazards
        if not seen.shows(hazard)
    )
    unknown = tuple(dict.fromkeys(seen.unknown + unread.unknown))[:UNKNOWN]
    return replace(seen, hazards=(*weighed_here, *more), unknown=unknown)


def _noted(hazard: Hazard, why: str) -> Hazard:
    return hazard if hazard.note else replace(hazard, note=why)


def _once(subject: Subject, tool: str, names: Sequence[str], scratch: Path, *more: str) -> Seen:
    journal, stack = Journal(scratch / "journal.jsonl"), scratch / "stack.txt"
    journal.path.unlink(missing_ok=True)
    words = ["-m", "pinproof_cell.sanitizer.program", "--candidate", subject.candidate]
    words += ["--target", subject.target, "--seed", str(subject.seed)]
    words += ["--stack", str(stack), "--after", str(0.9 * subject.limit)]
    words += ["--journal", str(journal.path), *more, *names]
    ran, tries = _ran(subject, tool, words, scratch), 1
    if ran.ended.timed_out and not journal.lines("session"):
        # That says nothing of the kernel. It happens on a busy GPU, and with vLLM's libraries.
        ran, tries = _ran(subject, tool, words, scratch), 2
    hazards = ran.report.hazards
    counted = ran.report.errors or 0
    if counted and all(hazard.warning for hazard in hazards):
        hazards = (*hazards, _unknown(ran.report, counted))
    read = [weighed(tool, hazard) for hazard in hazards]
    hidden = counted - sum(hazard.times for hazard in hazards)
    if tool != "racecheck" and hidden > 0 and all(hazard.warning for hazard in read):
        # Behind many that are misread there may be one that is not.
        read.append(_unknown(ran.report, hidden))
    return Seen(
        calls=tuple(line["call"] for line in journal.lines("end") if line["status"] == RAN),
        hazards=tuple(read),
        reason=_reason(ran, journal, tries, stood(stack)),
        session=next(iter(journal.lines("session")), {}),
        unknown=ran.report.unknown[:UNKNOWN],
        tries=tries,
    )


def _ran(subject: Subject, tool: str, words: Sequence[str], scratch: Path) -> sanitizers.Ran:
    """Run the tool once; the program does not outlive it."""
    (scratch / "stack.txt").unlink(missing_ok=True)
    ran = sanitizers.run(
        subject.program,
        tool,
        words,
        target=subject.target,
        timeout=subject.limit,
        scratch=scratch,
    )
    # The tool lies between us and the program: on a GPU that went on when the tool was killed.
    for line in Journal(scratch / "journal.jsonl").lines("program"):
        child.end_strayed(line["pid"], str(scratch))
    return ran


def _unknown(told: Report, errors: int) -> Hazard:
    """Return `errors` that a tool counted, and did not tell in words that we know: they count."""
    words = "; ".join(told.unknown[:UNKNOWN])
    if not words:
        return Hazard(what=f"{errors} errors that the tool did not print", times=errors)
    note = f"in words that are not known: {words}"
    return Hazard(what=f"{errors} errors", times=errors, note=note)


def _reason(ran: sanitizers.Ran, journal: Journal, tries: int = 1, place: str = "") -> str | None:
    """Return what kept a run from looking at all that it should, or None; `place` is its last."""
    session = next(iter(journal.lines("session")), {})
    begun = journal.unfinished("call")
    if ran.ended.timed_out:
        where = f"in {begun['call']}" if begun else "after the last call"
        where = where if session else "before the candidate was loaded"
        again = ", twice" if tries > 1 and not session else ""
        return f"{ran.ended.reason}, {where}{again}{f'; it stood {place}' if place else ''}"
    if session.get("reason"):
        return str(session["reason"])
    trouble = "; ".join(ran.report.troubles)
    if begun or not session:
        where = f" in {begun['call']}" if begun else ""
        return f"{trouble or ran.ended.reason or 'the program ended'}{where}"
    for line in journal.lines("end"):
        if line["status"] not in (RAN, REFUSED):
            return f"{line['call']}: {line['reason']}"
    return trouble or (None if ran.report.is_whole else "the tool gave no summary")


def _line(found: Mapping[str, Any]) -> str:
    """Return one line on one run, for the log."""
    told = [f"{hazard['text']} ({', '.join(hazard['calls'])})" for hazard in found["hazards"]]
    why = [*([found["reason"]] if found["reason"] else []), *told]
    return ", ".join([f"{found['tool']}: {found['status']}", f"{len(found['calls'])} calls", *why])
