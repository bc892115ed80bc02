"""The graph of steps that a run walks: equal work once, each step with the reason for it. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.plan.stage import Stage


class State(StrEnum):
    """Why a step stands in the plan as it does."""

    NEW = "new"
    CHANGED = "changed"
    CACHED = "cached"
    UNAVAILABLE = "unavailable"

    @property
    def runs(self) -> bool:
        """True where the step has to be executed."""
        return self in (State.NEW, State.CHANGED)


class Memory(Protocol):
    """What the plan asks of the evidence store."""

    def load(self, cell: str, stage: Stage, digest: str) -> Evidence | None:
        """Return the evidence of exactly these inputs, or None."""

    def is_damaged(self, cell: str, stage: Stage, digest: str) -> bool:
        """Say if there is a record of exactly these inputs that cannot be trusted."""

    def latest(self, cell: str, stage: Stage) -> Evidence | None:
        """Return the newest evidence of that stage, or None."""

    def nearest(self, stage: Stage, inputs: Mapping[str, Any]) -> Evidence | None:
        """Return the evidence of that stage, of any owner, with the most of these inputs."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One piece of work.

    ``owner`` is the cell, or the key of what several cells share (a lock, a build); ``cells``
    are those that need it; ``needs`` are ids of steps before it; ``inputs`` is everything that
    it reads and ``digest`` names them. An ``exclusive`` step runs alone, since it measures time.
    ``ended`` is the outcome of the evidence that a CACHED step stands on.
    """

    owner: str
    stage: Stage
    cells: tuple[str, ...]
    needs: tuple[str, ...] = ()
    inputs: Mapping[str, Any]
    digest: str
    timeout: float
    exclusive: bool = False
    gpu: bool = False
    state: State = State.NEW
    reason: str = ""
    ended: Outcome | None = None

    @property
    def id(self) -> str:
        """The step's name in the plan, the progress display and the logs."""
        return f"{self.owner}:{self.stage}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one cell asks for, in the plan's terms: its stages with what each of them reads."""

    cell: str
    target: str
    #: (stage, owner, inputs, timeout); inputs are None where they are not known yet.
    stages: tuple[tuple[Stage, str, Mapping[str, Any] | None, float], ...]
    environment_ready: str = ""  # the digest of the install whose environment is on disk


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps in an order in which every step comes after what it needs."""

    steps: tuple[Step, ...]

    @property
    def todo(self) -> tuple[Step, ...]:
        """The steps that have to be executed."""
        return tuple(step for step in self.steps if step.state.runs)

    def of(self, cell: str) -> tuple[Step, ...]:
        """Return the steps that `cell` needs, in their order."""
        return self._by_cell.get(cell, ())

    @functools.cached_property
    def _by_cell(self) -> Mapping[str, tuple[Step, ...]]:
        found: dict[str, list[Step]] = {}
        for step in self.steps:
            for cell in step.cells:
                found.setdefault(cell, []).append(step)
        return {cell: tuple(steps) for cell, steps in found.items()}


def make(
    works: Iterable[Work],
    memory: Memory,
    *,
    machine: str,
    fresh: bool = False,
    done: Mapping[str, Outcome] | None = None,
) -> Plan:
    """Lay the steps of all cells out as one graph, in which steps with equal owner are one.

    A step is CACHED where `memory` holds final evidence of exactly its inputs (and `fresh` does
    not forbid it), UNAVAILABLE where it measures a target that `machine` is not. `done` are the
    outcomes of the steps that this very run has executed already, by id.
    """
    steps: dict[str, Step] = {}
    for work in works:
        before: tuple[str, ...] = ()
        own: list[Step] = []
        for stage, owner, inputs, timeout in work.stages:
            step = _step(work, stage, owner, inputs, timeout, before)
            known = steps.get(step.id)
            if known is not None:
                step = replace(known, cells=(*known.cells, work.cell))
            elif done and step.id in done:
                ended = done[step.id]
                reason = "done in this run" if ended is Outcome.OK else "in this run"
                step = replace(step, state=State.CACHED, reason=reason, ended=ended)
            else:
                step = _with_state(step, memory, work.target, machine, fresh)
            own.append(step)
            # All of them: of two steps that run, one that need not may stand in between.
            before = (*before, step.id)
            if step.ended not in (None, Outcome.OK):
                break  # the verdict stands; nothing behind it can run
        for step in _without_needless_installs(own, work):
            steps[step.id] = step
    return Plan(steps=tuple(steps.values()))


def _step(
    work: Work,
    stage: Stage,
    owner: str,
    inputs: Mapping[str, Any] | None,
    timeout: float,
    needs: tuple[str, ...],
) -> Step:
    return Step(
        owner=owner,
        stage=stage,
        cells=(work.cell,),
        needs=needs,
        inputs=inputs or {},
        digest=digest_of(inputs) if inputs is not None else "",
        timeout=timeout,
        exclusive=stage is Stage.THROUGHPUT,
        gpu=stage.needs_target and work.target != "cpu",
    )


def _with_state(step: Step, memory: Memory, target: str, machine: str, fresh: bool) -> Step:
    if step.stage is Stage.SANITIZE and target == "cpu":
        why = "compute-sanitizer looks at kernels of a GPU, and the target is cpu"
        return replace(step, state=State.UNAVAILABLE, reason=why)
    if step.stage.needs_target and target not in ("cpu", machine):
        here = "has no GPU" if machine == "cpu" else f"is {machine}"
        return replace(step, state=State.UNAVAILABLE, reason=f"needs {target}; this machine {here}")
    if not step.digest:
        return replace(step, state=State.NEW, reason="what it reads is not known yet")
    if fresh:
        return replace(step, state=State.NEW, reason="asked for with --fresh")
    known = memory.load(step.owner, step.stage, step.digest)
    if known is not None and known.is_final:
        reason = f"same inputs as on {known.started[:10]}"
        return replace(step, state=State.CACHED, reason=reason, ended=known.outcome)
    if known is not None:
        why = f"not all could be seen ({known.incomplete})" if known.incomplete else ""
        why = why or f"{known.outcome} ({known.reason})"
        return replace(step, state=State.NEW, reason=f"last time: {why}")
    if memory.is_damaged(step.owner, step.stage, step.digest):
        reason = "its record is damaged, or an older version wrote it"
        return replace(step, state=State.NEW, reason=reason)
    if step.stage is Stage.BUILD:  # its owner is its key, so another key is another owner
        last = memory.nearest(step.stage, step.inputs)
    else:
        last = memory.latest(step.owner, step.stage)
    if last is None:
        return replace(step, state=State.NEW, reason="no evidence yet")
    return replace(step, state=State.CHANGED, reason=difference(last.inputs, step.inputs))


def _without_needless_installs(steps: Sequence[Step], work: Work) -> list[Step]:
    """Install again only where a later stage runs and the environment on disk is another one."""
    later_runs = False
    result: list[Step] = []
    for step in reversed(steps):
        if step.stage is Stage.INSTALL and step.state is State.CACHED and later_runs:
            ready = work.environment_ready == step.digest
            if not ready:
                step = replace(step, state=State.NEW, reason="its environment is not there")
        later_runs = later_runs or step.state.runs
        result.append(step)
    return result[::-1]


def difference(old: Mapping[str, Any], new: Mapping[str, Any], *, most: int = 3) -> str:
    """Say in a line what moved between two inputs: ``torch 2.14.0 -> 2.15.0, cell code``.

    Digests are named and not shown; keys of nested tables stand for themselves.
    """
    before, after = _flat(old), _flat(new)
    moved = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    # A version that moved says more than the digest which moved with it.
    telling = [key for key in moved if not _is_digest(before.get(key), after.get(key))] or moved
    parts = [_moved(key, before.get(key), after.get(key)) for key in telling[:most]]
    if len(telling) > most:
        parts.append(f"{len(telling) - most} more")
    return ", ".join(parts) or "nothing that is recorded"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, prefix))
        else:
            flat[key] = value
    return flat


def _is_digest(*values: Any) -> bool:
    return any(
        isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
        for value in values
    )


def _moved(key: str, old: Any, new: Any) -> str:
    if _is_digest(old, new):
        return key
    if old is None:
        return f"{key} {new} added"
    if new is None:
        return f"{key} removed"
    return f"{key} {old} -> {new}"
