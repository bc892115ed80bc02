"""The kernels that are right, by device: the judge must pass every one of them, always."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pinproof_cell import candidates
from pinproof_cell.candidates import Candidate
from pinproof_cell.candidates.provider import Provider
from pinproof_cell.mutants import everything
from pinproof_cell.mutants.source import SOURCE
from pinproof_cell.suite.cases import FEATURES

#: Candidates of a GPU, each asked one case in so many: Triton compiles nearly every one anew.
ON_CUDA = {
    "triton-ref": 32,
    "triton-fast": 32,
    "torch-sdpa-flash": 1,
    "torch-sdpa-cudnn": 1,
    "torch-sdpa-efficient": 1,
    "torch-sdpa-math": 1,
    "flash-attn-2": 1,
}
#: Those of a CPU beside the emulated ones; in the interpreter ours takes a hundred times as long.
ON_CPU = {"triton-ref": 4, "torch-sdpa-math": 1}


@dataclass(frozen=True)
class Calibrator:
    """A kernel that is right, and in how many cases it is asked one."""

    candidate: Candidate
    every: int = 1


def of(device: str) -> tuple[list[Calibrator], dict[str, str]]:
    """Return the kernels that run on `device` here, and why the others do not. Imports them."""
    found, absent = list(_emulated()) if device == "cpu" else [], {}
    for name, every in (ON_CPU if device == "cpu" else ON_CUDA).items():
        candidate = candidates.get(name)
        reason = candidate.available()
        if reason:
            absent[name] = reason
        else:
            found.append(Calibrator(candidate, every))
    return found, absent


def _emulated() -> Iterator[Calibrator]:
    """Yield the controls of the kill matrix: valid schedules, emulated step by step."""
    for mutant in everything():
        if mutant.control:
            slow = mutant.against == SOURCE
            kernel = Provider(mutant.id, mutant.make(), origin="emulation", admits=FEATURES)
            yield Calibrator(kernel, ON_CPU["triton-ref"] if slow else 1)
