"""What evidence must have covered before it can speak for a cell. Pure.

A pass on another GPU, of a few easy cases, or of the forward pass alone is no proof: each function
yields what is missing, in words, and a cell with anything missing is never SAFE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pinproof.judge.checks import PASS, Candidate, Check, Correctness, ended
from pinproof.judge.speed import asks_for, is_about

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell
    from pinproof.matrix.matrixfile import Policy

#: What a use calls all the time, in words. Each is passed by a check with a feature of every set.
Needs = Mapping[str, tuple[frozenset[str], ...]]

ALWAYS: Needs = {
    "bf16": (frozenset({"bf16"}),),
    "causal": (frozenset({"causal", "causal-rectangular"}),),
    "grouped heads": (frozenset({"gqa"}),),
}
PAGED: Needs = {"paged keys": (frozenset({"paged"}),)}
BACKWARD: Needs = {
    f"the backward pass with {word}": (*need, frozenset({"backward"}))
    for word, need in ALWAYS.items()
}


def devices(cell: Cell, measured: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the stages that ran on something else than the cell's target.

    `measured` is the data of the measuring stages by name; each names its device.
    """
    for stage, data in measured.items():
        seen = (data.get("device") or {}).get("capability") if data else None
        if data and seen != cell.target:
            yield f"{stage} ran on {seen or 'an unknown device'}, not on {cell.target}"


def uses(cell: Cell, correctness: Correctness, policy: Policy) -> Iterator[str]:
    """Yield the asked uses of whose must-haves no single candidate passed all.

    Serving is for what the cell is about: a kernel of torch does not serve for vLLM's. Training may
    be any candidate's: none of vLLM's has a backward pass.
    """
    asked = set(policy.uses) or {"everything"}
    found = correctness.candidates
    about = [item for item in found if is_about(cell, item.name)] or found
    if asked & {"serving", "everything"}:
        stack = PAGED if asks_for(cell, "vllm") else {}
        yield from _least("serving", about, policy, {**ALWAYS, **stack})
    if asked & {"training", "everything"}:
        yield from _least("training", found, policy, {**ALWAYS, **BACKWARD})


def _least(
    use: str, candidates: Sequence[Candidate], policy: Policy, needs: Needs
) -> Iterator[str]:
    """Yield what the candidate that lacks least still lacks."""
    lacking = [_lacking(candidate.asked(policy), needs) for candidate in candidates]
    if lacking and (least := min(lacking, key=len)):
        yield f"no candidate passed all that {use} needs; the best lacks {', '.join(least)}"


def _lacking(checks: Sequence[Check], needs: Needs) -> list[str]:
    passed = [check.features for check in ended(checks, PASS)]
    return [
        word
        for word, need in needs.items()
        if not any(all(any_of & has for any_of in need) for has in passed)
    ]
