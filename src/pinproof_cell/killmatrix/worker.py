"""One process of the mutant run: a share of the checks, each put to its mutants, into a journal.

A check's inputs and its oracle are computed once, for all mutants; what the journal holds already
is not asked again.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from pinproof_cell.candidates.distribution import failure
from pinproof_cell.candidates.provider import module
from pinproof_cell.killmatrix.question import Honest, ask, meets
from pinproof_cell.mutants import Attention, Mutant, everything
from pinproof_cell.mutants.source import SOURCE
from pinproof_cell.suite import checks
from pinproof_cell.suite.checks import Check
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

#: How long a mutant may take over one check, in seconds; then the alarm ends this process.
HANG = 60


def gather(extra: Path | None) -> tuple[Mutant, ...]:
    """Return our mutants and those of an extra file. Raises ValueError for what is none."""
    ours = everything()
    if extra is None:
        return ours
    found = getattr(module(extra), "MUTANTS", None)
    if not isinstance(found, dict) or not all(callable(value) for value in found.values()):
        raise ValueError(f"{str(extra)!r} has no MUTANTS, a dict of name to callable")
    taken = sorted({mutant.id for mutant in ours} & set(found))
    if taken:
        raise ValueError(f"{str(extra)!r} names mutants that exist: {', '.join(taken)}")
    return ours + tuple(
        Mutant(id=str(name), family="extra", stands_for="of your own", make=_maker(function))
        for name, function in found.items()
    )


def _maker(function: Attention) -> Callable[[], Attention]:
    return lambda: function


def main(words: Sequence[str] | None = None) -> int:
    """Run one share; what the journal holds already is not run again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--share", type=int, nargs=2, required=True)
    options = parser.parse_args(words)
    child.end_with_parent()
    torch.set_num_threads(1)
    task = json.loads(options.task.read_text(encoding="utf-8"))
    try:
        mutants = gather(Path(task["extra"]) if task["extra"] else None)
    except Exception as error:
        print(failure(error))
        return 2
    journal = Journal(options.journal)
    journal.add("plan", mutants=[_facts(mutant) for mutant in mutants])
    number, of = options.share
    chosen = mutants if task["mutants"] is None else [m for m in mutants if m.id in task["mutants"]]
    share = _Share(journal, chosen)
    for name in task["checks"][number::of]:
        share.ask_all(checks.by_id(name))
    return 0


def _facts(mutant: Mutant) -> dict[str, Any]:
    names = [field.name for field in fields(mutant) if field.name != "make"]
    return {name: getattr(mutant, name) for name in names} | {"needs": sorted(mutant.needs)}


class _Share:
    """What is left to do: the journal says what a process before this one has begun."""

    def __init__(self, journal: Journal, mutants: Sequence[Mutant]) -> None:
        self.journal = journal
        self.mutants = mutants
        self.begun = {(line["mutant"], line["check"]) for line in journal.lines("begin")}
        # A mutant whose call ended a process has been seen to be broken: once is enough.
        self.done = {
            line["mutant"] for line in journal.lines("end") if line["status"] in ("CRASH", "HANG")
        }

    def ask_all(self, check: Check) -> None:
        """Put a check to every mutant that it could tell from the honest kernel."""
        honest = Honest(check)
        for mutant in self.mutants:
            known = (mutant.id, check.id) in self.begun or mutant.id in self.done
            if not known and meets(mutant, check):
                self._ask(mutant, honest)

    def _ask(self, mutant: Mutant, honest: Honest) -> None:
        named = {"mutant": mutant.id, "check": honest.check.id}
        self.journal.add("begin", **named)
        # The default action of the alarm ends the process, also inside a kernel.
        signal.alarm(HANG)
        answer = ask(mutant, honest)
        signal.alarm(0)
        if mutant.against == SOURCE and not mutant.control and answer.kills:
            # The interpreter is slow.
            self.done.add(mutant.id)
        self.journal.add(
            "end",
            **named,
            active=answer.active,
            status=answer.result.status,
            stats=answer.result.stats,
            findings=[finding.document() for finding in answer.result.findings],
        )


if __name__ == "__main__":
    sys.exit(main())
