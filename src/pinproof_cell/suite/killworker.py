"""One process of the mutant run: a share of the cases, every mutant on each, into a journal.

A case's inputs, its oracle and the honest answer are computed once, for all mutants.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.candidates.distribution import failure
from pinproof_cell.candidates.provider import Provider, module
from pinproof_cell.judge import thresholds
from pinproof_cell.judge.forward import Judgement, judge
from pinproof_cell.mutants import (
    HONEST,
    SOURCE,
    SPLITS,
    Attention,
    Mutant,
    always,
    emulation,
    everything,
    source,
    splits,
)
from pinproof_cell.oracle import forward as oracle
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.checks import Repeats
from pinproof_cell.suite.grid import PLAIN
from pinproof_cell.suite.guard import Guarded
from pinproof_cell.suite.repeats import repeat
from pinproof_cell.suite.trial import CallError, Trial
from pinproof_cell.throughput.journal import append, read
from pinproof_cell.world import child

#: How long one call of a mutant may take, in seconds; then the alarm ends this process.
HANG = 60
#: The name of the check of repeats, which stands beside the cases.
REPEATED = "repeats"


@dataclass(frozen=True)
class Asked:
    """A case with all that its judgement needs.

    ``honest`` are the answers of the kernels that mutants are made from, by name; our own is
    left out where its mutants are not asked.
    """

    case: Case
    drawn: Call
    truth: oracle.Truth
    honest: dict[str, tuple[Tensor, Tensor]]


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
        Mutant(id=str(name), family="extra", stands_for="of your own", make=always(function))
        for name, function in found.items()
    )


def prepare(case: Case) -> Asked:
    """Draw a case's inputs and compute its truth."""
    drawn = inputs.generate(case, 0, "cpu")
    truth = oracle.attention(drawn)
    kernels: dict[str, Attention] = {HONEST: emulation.HONEST, SPLITS: splits.SPLIT}
    if case.id in source.CASES:
        kernels[SOURCE] = source.unchanged()
    honest = {
        name: kernel(drawn.q, drawn.k, drawn.v, **drawn.keywords())
        for name, kernel in kernels.items()
    }
    return Asked(case, drawn, truth, honest)


def ask(candidate: Guarded, asked: Asked, against: str) -> tuple[bool, Judgement]:
    """Return whether the answer is another than that of `against`, and its judgement."""
    limits = thresholds.load("cpu")
    try:
        out, lse = Trial(candidate, 0, "cpu", limits).forward(asked.drawn)
    except CallError as error:
        return True, Judgement(error.result.status, {}, error.result.findings)
    wanted = asked.honest[against]
    same = torch.equal(out, wanted[0]) and torch.equal(lse, wanted[1])
    return not same, judge(out, lse, asked.truth, thresholds=limits, dtype=asked.drawn.q.dtype)


def ask_again(candidate: Guarded, count: int) -> tuple[bool, Judgement]:
    """Return whether repeats differ among each other, and what that is called."""
    try:
        trial = Trial(candidate, 0, "cpu", thresholds.load("cpu"))
        found = repeat(trial, Repeats(Case(128, 128), count))
    except CallError as error:
        found = error.result
    return found.status != "PASS", Judgement(found.status, found.stats, found.findings)


def main(words: Sequence[str] | None = None) -> int:
    """Run one share; what the journal holds already is not run again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--extra", type=Path)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--share", type=int, nargs=2, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    options = parser.parse_args(words)
    child.end_with_parent()
    torch.set_num_threads(1)
    try:
        mutants = gather(options.extra)
    except Exception as error:
        print(failure(error))
        return 2
    append(options.journal, "plan", mutants=[_facts(mutant) for mutant in mutants])
    wanted = set(json.loads(options.cases.read_text(encoding="utf-8")))
    cases = [case for case in PLAIN if case.id in wanted]
    number, of = options.share
    work = _Share(options.journal, mutants)
    work.ask_all(cases[number::of])
    work.repeat_all(mutants[number::of], options.repeats)
    return 0


def _facts(mutant: Mutant) -> dict[str, Any]:
    names = (field.name for field in fields(mutant) if field.name != "make")
    return {name: getattr(mutant, name) for name in names}


class _Share:
    def __init__(self, journal: Path, mutants: Sequence[Mutant]) -> None:
        self.journal = journal
        self.mutants = mutants
        self.begun = {(line["mutant"], line["case"]) for line in read(journal) if "case" in line}
        self.dead = _dead(journal)
        self.candidates = {
            mutant.id: Guarded(Provider(mutant.id, mutant.make())) for mutant in mutants
        }

    def ask_all(self, cases: Sequence[Case]) -> None:
        for case in cases:
            asked = prepare(case)
            for mutant in self.mutants:
                if mutant.against not in asked.honest:
                    continue
                if not case.features - self.candidates[mutant.id].supports:
                    self._one(mutant, case.id, partial(ask, asked=asked, against=mutant.against))

    def repeat_all(self, mutants: Sequence[Mutant], count: int) -> None:
        for mutant in mutants:
            # A run of our own kernel takes a tenth of a second in the interpreter.
            most = min(count, 3) if mutant.against == SOURCE else count
            self._one(mutant, REPEATED, partial(ask_again, count=most))

    def _one(
        self, mutant: Mutant, case: str, question: Callable[[Guarded], tuple[bool, Judgement]]
    ) -> None:
        if (mutant.id, case) in self.begun or mutant.id in self.dead:
            return
        append(self.journal, "begin", mutant=mutant.id, case=case)
        # The default action of the alarm ends the process, also inside a kernel.
        signal.alarm(HANG)
        active, found = question(self.candidates[mutant.id])
        signal.alarm(0)
        append(
            self.journal,
            "end",
            mutant=mutant.id,
            case=case,
            active=active,
            status=found.status,
            stats=found.stats,
            findings=[finding.document() for finding in found.findings],
        )


def _dead(journal: Path) -> set[str]:
    """Return the mutants whose call ended a process before this one: once is enough."""
    begun = {(line["mutant"], line["case"]) for line in read(journal) if line["kind"] == "begin"}
    ended = {(line["mutant"], line["case"]) for line in read(journal) if line["kind"] == "end"}
    return {mutant for mutant, _ in begun - ended}


if __name__ == "__main__":
    sys.exit(main())
