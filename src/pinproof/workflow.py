"""The main job: load, expand, resolve, plan, run, judge, report. Each step hands on a value."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TextIO

from pinproof.clock import now
from pinproof.errors import ExitCode, InfrastructureError
from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.evidence.store import Store
from pinproof.judge import judgement
from pinproof.matrix import selection
from pinproof.matrix.selection import Selection
from pinproof.options import Options, root
from pinproof.plan import plan, preview, recipe
from pinproof.plan.plan import Plan, State, Step
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage
from pinproof.report import results
from pinproof.report.results import Row
from pinproof.run import asked, progress, runner, scheduler
from pinproof.run.execute import Executor
from pinproof.run.machine import Machine, this_machine
from pinproof.run.preparation import Preparation

#: Memory that a step may need, in GiB: fewer steps run side by side where there is less.
GIB_PER_STEP = 4.0


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a run came to.

    ``document`` is the results document of the cells that were chosen, or the plan's after a dry
    run. ``rows`` hold each cell with its judgement and evidence; ``works`` what was to be done for
    it.
    """

    document: Mapping[str, Any]
    rows: tuple[Row, ...] = ()
    works: Mapping[str, CellWork]
    exit_code: ExitCode


def run(options: Options, out: TextIO) -> Proof:
    """Prove the cells that `options` choose and tell `out` about it while it goes.

    Raises PinproofError for what keeps a run from being made at all.
    """
    machine = this_machine()
    chosen = selection.make(options, machine)
    asked.check(options, chosen)
    store = Store(options.store)
    # Being stopped by a service manager is no other thing than Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with nullcontext() if options.dry_run else store.exclusive():
        proof = _Run(options, machine, chosen, store, out).prove()
    if options.dry_run:
        return proof
    with suppress(InfrastructureError):  # writing the results will say so
        store.remember(chosen.matrix.name, options.backend, options.python)
    return proof


def recall(options: Options) -> Proof:
    """Judge the cells that `options` choose from stored evidence alone; nothing is run.

    A back end that is not named is the one of the last run: evidence belongs to its environment.
    """
    machine = this_machine()
    chosen = selection.make(options, machine)
    if options.backend is None and options.python is None:
        backend, python = Store(options.store).remembered(chosen.matrix.name)
        options = replace(options, backend=backend, python=python)
    return _Run(options, machine, chosen, Store(options.store), sys.stderr, stored=True).recall()


class _Run:
    """One run. Evidence gathers in `known`, by owner and stage; everything else is a value."""

    def __init__(
        self,
        options: Options,
        machine: Machine,
        chosen: Selection,
        store: Store,
        out: TextIO,
        *,
        stored: bool = False,
    ) -> None:
        self.options = options
        self.machine = machine
        self.chosen = chosen
        self.store = store
        self.out = out
        room = int(machine.memory_gib / GIB_PER_STEP)
        self.jobs = options.jobs or max(1, min(machine.cores, room))
        self.preparation = Preparation(options, chosen, machine, stored=stored)
        self.known: dict[tuple[str, Stage], Evidence] = {}
        self.done: dict[str, Outcome] = {}
        self.interrupted = False
        self.broken: InfrastructureError | None = None

    def prove(self) -> Proof:
        """Walk the whole way."""
        started = now()
        name, cells = self.chosen.matrix.name, self.chosen.tried
        self._say(*self.options.shown(name, len(cells), self.machine, self.jobs))
        self._say(*asked.notes(self.options, self.chosen))
        _ = self.preparation.installer  # a wrong wheelhouse ends the run before it begins
        works = self.preparation.asked()
        self._say(*self.preparation.notes)
        first = self._plan(works, recipe.resolving)
        if not self.options.dry_run:
            self._walk(first, works)
        whole, works = self._planned(self.preparation.locked(works, self.known))
        told = {cell: evidence.reason for cell, evidence in self.preparation.problems.items()}
        full = self.options.dry_run
        self._say(*preview.lines(whole, self.chosen.cells, told, full=full), "")
        if self.options.dry_run:
            document = preview.document(whole, self.chosen.cells, told)
            return Proof(document=document, works=works, exit_code=ExitCode.OK)
        builds = Plan(steps=tuple(step for step in whole.todo if step.stage is Stage.BUILD))
        if builds.steps:
            # A build is known by its wheel: what installs it is planned when the wheel is there.
            self._walk(builds, works)
            whole, works = self._planned(works)
        self._walk(whole, works)
        return self._judged(works, started)

    def recall(self) -> Proof:
        """Judge what is known now."""
        works = self.preparation.asked()
        self._plan(works, recipe.resolving)
        _, works = self._planned(self.preparation.locked(works, self.known))
        return self._judged(works, now())

    def _say(self, *lines: str) -> None:
        for line in lines:
            print(line, file=self.out, flush=True)

    def _planned(self, works: Mapping[str, CellWork]) -> tuple[Plan, Mapping[str, CellWork]]:
        """Plan the whole way, with the wheels that were built as far as they are known."""
        whole = self._plan(works, self._everything)
        built = self.preparation.with_wheels(works, self.known)
        return (whole, works) if built is works else (self._plan(built, self._everything), built)

    def _plan(
        self, works: Mapping[str, CellWork], to_work: Callable[[CellWork], plan.Work]
    ) -> Plan:
        made = plan.make(
            map(to_work, works.values()),
            self.store,
            machine=self.machine.target,
            fresh=self.options.fresh,
            done=self.done,
        )
        for step in made.steps:
            self._recall(step)
        return made

    def _recall(self, step: Step) -> None:
        """Take up the evidence that a step stands on without being run."""
        key = (step.owner, step.stage)
        if step.state is State.CACHED and key not in self.known:
            known = self.store.load(step.owner, step.stage, step.digest)
            if known is not None:
                self.known[key] = known
        elif step.state is State.UNAVAILABLE:
            executor = self._executor(None)
            self.known[key] = executor.evidence(
                step, Outcome.UNAVAILABLE, step.reason, {}, now(), 0.0
            )

    def _everything(self, work: CellWork) -> plan.Work:
        ready = runner.filled_by(self.options.envdir / work.cell.id)
        return recipe.everything(work, self.machine, until=self.options.until, ready=ready)

    def _executor(self, shown: progress.Progress | None) -> Executor:
        return Executor(
            store=self.store,
            envdir=self.options.envdir,
            machine=self.machine,
            on_line=shown.line if shown else lambda step, line: None,
        )

    def _walk(self, way: Plan, works: Mapping[str, CellWork]) -> None:
        """Execute what the plan has to do, and keep the evidence."""
        if not way.todo or self.interrupted or self.broken is not None:
            return
        shown = progress.make(self.out, len(way.todo))
        execute = runner.Runner(
            executor=self._executor(shown),
            works=works,
            backend=self.preparation.backend,
            installer=lambda: self.preparation.installer,
        )

        labels = {cell.id: cell.label for cell in self.chosen.tried}

        def done(step: Step, evidence: Evidence) -> None:
            self.known[step.owner, step.stage] = evidence
            self.done[step.id] = evidence.outcome
            shown.finish(step.id, str(evidence.outcome), evidence.seconds, evidence.reason)

        try:
            finished = scheduler.run(
                way.todo,
                execute,
                jobs=self.jobs,
                done=done,
                started=lambda step: shown.start(step.id, labels.get(step.owner, step.reason)),
            )
            self.interrupted = not finished
        except InfrastructureError as error:
            # What is known is still told, and the exit code says that it is not all.
            self.broken = error
        finally:
            shown.close()

    def _evidence(self, steps: Sequence[Step]) -> dict[Stage, Evidence]:
        """Return what is known of the steps of a cell, those that the machine failed too.

        Where the store could not be written, that is what ended the first step without evidence.
        """
        found: dict[Stage, Evidence] = {}
        for step in steps:
            known = self.known.get((step.owner, step.stage))
            if known is None and step.digest:
                known = self.store.load(step.owner, step.stage, step.digest)
            if known is None and self.broken is not None:
                what, executor = self.broken.what, self._executor(None)
                found[step.stage] = executor.evidence(step, Outcome.INFRA, what, {}, now(), 0.0)
                break
            if known is not None:
                found[step.stage] = known
        return found

    def _sanitized(self, work: CellWork | None) -> Evidence | None:
        """Return what a sanitizer once saw of this very cell: that counts, asked for or not."""
        if work is None or self.store.latest(work.cell.id, Stage.SANITIZE) is None:
            return None
        asked = replace(work, matrix=work.matrix.sanitized())
        stage, owner, inputs, _ = recipe.everything(asked, self.machine).stages[-1]
        known = self.store.load(owner, stage, digest_of(inputs)) if inputs is not None else None
        return known if known is not None and known.is_final else None

    def _judged(self, works: Mapping[str, CellWork], started: str) -> Proof:
        """Judge every cell over the evidence that stands now, also of stages not asked for."""
        self.options = replace(self.options, fresh=False, until=None)
        way = self._plan(works, self._everything)
        matrix, wanted = self.chosen.matrix, self.chosen.required
        rows = []
        for cell in self.chosen.cells:
            evidence = self._evidence(way.of(cell.id))
            if known := self._sanitized(works.get(cell.id)):
                evidence.setdefault(Stage.SANITIZE, known)
            if cell.id in self.preparation.problems:
                evidence = {Stage.RESOLVE: self.preparation.problems[cell.id]}
            judged = judgement.judge(cell, evidence, matrix.policy, matrix.checks)
            required = cell.id in wanted
            rows.append(Row(cell=cell, judgement=judged, evidence=evidence, required=required))
        judgements = {row.cell.id: row.judgement for row in rows}
        code = judgement.exit_code(judgements, wanted)
        if self.broken is not None:
            self._say(f"pinproof: {self.broken}")
            code = ExitCode.INFRASTRUCTURE
        if self.interrupted:
            code = ExitCode.INTERRUPTED
        document = results.document(
            results.Run(
                matrix=matrix.name,
                rows=rows,
                policy=asdict(matrix.policy),
                checks=matrix.checks,
                machine=self.machine.facts(),
                targets=tuple(self.chosen.file.targets),
                started=started,
                finished=now(),
                exit_code=code,
                logs=os.path.relpath(self.store.root / "logs", root()),
            )
        )
        return Proof(document=document, rows=tuple(rows), works=works, exit_code=code)
