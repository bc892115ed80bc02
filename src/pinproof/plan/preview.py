"""The plan as people read it before it runs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pinproof.evidence.evidence import Outcome
from pinproof.matrix.cell import Cell
from pinproof.plan.plan import Plan, State, Step

#: With more cells than this the preview counts steps and does not list them.
MANY = 24


def lines(
    plan: Plan, cells: Sequence[Cell], problems: Mapping[str, str], *, full: bool = False
) -> Iterator[str]:
    """Yield the plan, a line for a cell and each of its steps with the reason for it.

    `cells` are those of the run, the excluded ones too; `problems` say by cell why nothing can
    be planned for it. Without `full`, more than `MANY` cells are only counted.
    """
    tried = [cell for cell in cells if cell.exclusion is None]
    yield from _excluded(cells)
    yield _summary(plan, len(tried))
    if full or len(tried) <= MANY:
        for cell in tried:
            yield f"  {cell.id}  {cell.label}"
            if cell.id in problems:
                yield f"    {problems[cell.id]}"
            for step in plan.of(cell.id):
                yield f"    {_line(step, cell.id)}"
    else:
        count = Counter((str(step.stage), _state(step), step.reason) for step in plan.steps)
        for (stage, state, reason), number in count.items():
            yield f"  {number:5} x {stage:<12} {state:<12} {reason}"


def document(plan: Plan, cells: Sequence[Cell], problems: Mapping[str, str]) -> dict[str, Any]:
    """Return the plan as JSON values, schema 1."""
    return {
        "schema": 1,
        "cells": [
            {
                "id": cell.id,
                "label": cell.label,
                "target": cell.target,
                "axes": dict(cell.axes),
                "excluded": None
                if cell.exclusion is None
                else {"rule": cell.exclusion.rule, "reason": cell.exclusion.reason},
                "problem": problems.get(cell.id),
            }
            for cell in cells
        ],
        "steps": [
            {
                "id": step.id,
                "stage": str(step.stage),
                "cells": list(step.cells),
                "needs": list(step.needs),
                "state": str(step.state),
                "reason": step.reason,
                "digest": step.digest,
            }
            for step in plan.steps
        ],
    }


def _excluded(cells: Sequence[Cell]) -> Iterator[str]:
    rules = Counter(cell.exclusion.rule for cell in cells if cell.exclusion is not None)
    if rules:
        named = ", ".join(f"{rule} x {count}" for rule, count in rules.most_common())
        yield f"excluded   {rules.total()} cells by rule: {named}"


def _summary(plan: Plan, cells: int) -> str:
    states = Counter(map(_state, plan.steps))
    words = dict.fromkeys(map(str, (*State, *Outcome)))
    told = ", ".join(f"{states[word]} {word}" for word in words if states[word])
    return f"plan       {cells} cells, {len(plan.steps)} steps: {told or 'nothing to do'}"


def _state(step: Step) -> str:
    """Return how a step stands in the plan; of one that ended ill, how it ended."""
    return str(step.state if step.ended in (None, Outcome.OK) else step.ended)


def _line(step: Step, cell: str) -> str:
    shared = "" if step.owner == cell else f" ({step.owner}, shared by {len(step.cells)})"
    return (
        f"{step.stage:<12} {_state(step):<12} {step.reason}{shared if len(step.cells) > 1 else ''}"
    )
