"""One mutant and one check: which of them meet, and what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from pinproof_cell.candidates.provider import Provider
from pinproof_cell.judge import thresholds
from pinproof_cell.killmatrix.table import SILENT
from pinproof_cell.mutants.emulation import HONEST
from pinproof_cell.mutants.mutant import EMULATION, Attention, Mutant
from pinproof_cell.mutants.source import SOURCE, unchanged
from pinproof_cell.mutants.splits import SPLIT, SPLITS
from pinproof_cell.suite.cases import FEATURES
from pinproof_cell.suite.checks import Check, Repeats
from pinproof_cell.suite.examine import ask as once
from pinproof_cell.suite.guard import Guarded
from pinproof_cell.suite.trial import UNSUPPORTED, Result, Trial

#: The honest kernels that mutants are made from, by name.
MAKERS: dict[str, Callable[[], Attention]] = {
    EMULATION: lambda: HONEST,
    SPLITS: lambda: SPLIT,
    SOURCE: unchanged,
}
#: How many tiles a case may take that is put to our own kernel.
MOST_TILES = 32
#: What a finding is about that no honest kernel can have: its mutant was active.
BREACHES = frozenset({"contract", "call", "process"})


@dataclass(frozen=True)
class Answer:
    """What a check said of a mutant, and whether that answered otherwise than the honest one."""

    active: bool
    result: Result

    @property
    def kills(self) -> bool:
        """Whether the check sees what is wrong."""
        return self.active and self.result.status not in ("PASS", *SILENT)


@dataclass(frozen=True)
class Honest:
    """The digests of what the honest kernels answer to one check, each asked when it is needed."""

    check: Check
    known: dict[str, list[str]] = field(default_factory=dict)

    def answers(self, name: str) -> list[str]:
        """Return the digests of the kernel called `name`, call after call."""
        if name not in self.known:
            self.known[name] = []
            put(Guarded(_provider(name, MAKERS[name](), self.known[name])), self.check)
        return self.known[name]


def meets(mutant: Mutant, check: Check) -> bool:
    """Return whether `check` could tell `mutant` from the honest kernel.

    Gradients are asked of those that break them, repeats of those that keep something or err now
    and then; both of controls, and of what we did not make ourselves. Our own kernel runs in
    Triton's interpreter, and is asked what takes that no second.
    """
    known = traits(check)
    if not mutant.needs <= known or (mutant.against == SOURCE and not _small(check)):
        return False
    if mutant.control or mutant.family == "extra":
        return True
    if "backward" in known and "backward" not in mutant.needs:
        return False
    return mutant.unsteady or not isinstance(check, Repeats)


def traits(check: Check) -> frozenset[str]:
    """Return the features of a check, the argument that it is about, and what mutants ask beside.

    That is "ragged", a layout that is not dense, and "view", memory that is not contiguous.
    """
    case, argument = check.case, getattr(check, "argument", "")
    beside = {
        argument: bool(argument),
        "ragged": case.layout != "dense",
        "view": case.memory != "plain",
    }
    return check.features | {name for name, there in beside.items() if there}


def _small(check: Check) -> bool:
    """Return whether the interpreter needs few tiles of 128 x 128 for the case."""
    case = check.case
    tiles = sum(-(-queries // 128) * -(-keys // 128) for queries, keys in case.sequences)
    return tiles * case.heads <= MOST_TILES and not isinstance(check, Repeats)


def ask(mutant: Mutant, honest: Honest) -> Answer:
    """Put a check to a mutant that has met no other one."""
    check = honest.check
    answers: list[str] = []
    candidate = Guarded(_provider(mutant.id, mutant.make(), answers, ours=mutant.family != "extra"))
    if check.features - candidate.supports:
        return Answer(False, Result(UNSUPPORTED, {}))
    result = put(candidate, check)
    wanted = honest.answers(mutant.against)
    differs = any(
        answer != wanted[place % len(wanted)] for place, answer in enumerate(answers) if wanted
    )
    breach = any(finding.check in BREACHES for finding in result.findings)
    return Answer(differs or breach, result)


def put(candidate: Guarded, check: Check) -> Result:
    """Put a check once, without the second and third look at what fails."""
    return once(Trial(candidate, 0, "cpu", thresholds.load("cpu")), check)


def _provider(name: str, function: Attention, answers: list[str], *, ours: bool = True) -> Provider:
    """Return a kernel as a candidate that leaves a digest of every answer in `answers`.

    Ours admit everything; others say so themselves.
    """

    def witnessed(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*tensors: torch.Tensor, **rest: Any) -> Any:
            answer = inner(*tensors, **rest)
            answers.append(digest(answer if isinstance(answer, (tuple, list)) else (answer,)))
            return answer

        return call

    witness: Any = witnessed(function)
    for attribute in ("supports", "lse_on_empty_rows"):
        if hasattr(function, attribute):
            setattr(witness, attribute, getattr(function, attribute))
    if hasattr(function, "backward"):
        witness.backward = witnessed(function.backward)
    return Provider(name, witness, admits=FEATURES if ours else None)


def digest(answer: Iterable[Any]) -> str:
    """Return a digest of the bits of some tensors, their shapes and types."""
    found = hashlib.blake2b(digest_size=16)
    for x in answer:
        if isinstance(x, torch.Tensor):
            found.update(f"{tuple(x.shape)} {x.dtype}".encode())
            found.update(x.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        else:
            found.update(type(x).__name__.encode())
    return found.hexdigest()
