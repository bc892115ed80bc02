"""What each cell has to do, as far as it is known: what it asks for, its lock, its wheels."""

from __future__ import annotations

import functools
import platform as host
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pinproof.builds import lookups, source
from pinproof.clock import now
from pinproof.errors import PinproofError, ResolveError
from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.evidence.store import Store
from pinproof.locks import gitref, lockfile, wheelhouse
from pinproof.locks import installer as installers
from pinproof.locks.fixed import Fixed
from pinproof.locks.gitref import Reach
from pinproof.locks.installer import Installer
from pinproof.locks.lockfile import Lockfile
from pinproof.locks.resolution import Resolution
from pinproof.locks.wheelhouse import House
from pinproof.matrix import axis as axes
from pinproof.matrix import matrixfile
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Settings
from pinproof.matrix.selection import Selection
from pinproof.options import Options
from pinproof.plan import recipe
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage
from pinproof.run import conda_environment, environment
from pinproof.run.environment import Backend
from pinproof.run.machine import Machine

#: The evidence of a run, by owner and stage.
Known = Mapping[tuple[str, Stage], Evidence]

Works = Mapping[str, CellWork]


class Preparation:
    """Says what the cells of a run have to do; ``problems`` holds what cannot be said, by cell.

    ``notes`` are what a user should know of the committed lock. With `stored` nobody is asked:
    what moves is what the lock or the last run says.
    """

    def __init__(
        self, options: Options, chosen: Selection, machine: Machine, *, stored: bool = False
    ) -> None:
        self.options = options
        self.chosen = chosen
        self.machine = machine
        self.problems: dict[str, Evidence] = {}
        self.notes: list[str] = []
        self._named = functools.cache(self._backend)
        offline = options.offline or options.wheelhouse is not None
        self._reach = Reach.NONE if stored else Reach.HERE if offline else Reach.ANY
        self._keeps = not stored and not options.dry_run
        self._commit = functools.cache(functools.partial(gitref.commit, reach=self._reach))

    @functools.cached_property
    def house(self) -> House | None:
        """The wheelhouse that everything comes from, if there is one."""
        return wheelhouse.load(self.options.wheelhouse) if self.options.wheelhouse else None

    @functools.cached_property
    def installer(self) -> Installer:
        """How uv is called in this run."""
        named = self.chosen.file.indexes
        return installers.installer(offline=self.options.offline, house=self.house, named=named)

    @functools.cached_property
    def lockfile(self) -> Lockfile:
        """The committed lock of the matrix; an empty one where there is none."""
        name = self.chosen.matrix.name
        found = lockfile.load(lockfile.path_of(self.options.matrix_file, name))
        return found or Lockfile(matrix=name)

    def backend(self, settings: Settings) -> Backend:
        """Return what makes the environment of a cell with these settings."""
        return self._named(settings.backend, settings.conda if settings.backend == "conda" else "")

    def _backend(self, name: str, conda: str) -> Backend:
        python = Path(self.options.python) if self.options.python else None
        if name == "conda":
            return conda_environment.named(conda, self.options.store)
        return environment.backend(name, system_python=python)

    def asked(self) -> Works:
        """Return what each cell asks for; what cannot be said is the cell's problem."""
        works: dict[str, CellWork] = {}
        matrix = self.chosen.matrix.on(cast("Any", self.options.backend))
        for cell in self.chosen.tried:
            backend = self.backend(matrixfile.settings(matrix, cell))
            system = backend.system()
            try:
                python = backend.default(cell)
                fixed = self._fixed(cell, python)
                memory = self.options.store / "declared"
                work = recipe.of(
                    cell,
                    matrix,
                    python=python,
                    system=system.packages if system else None,
                    records=system.records if system else None,
                    sites=map(Path, system.paths) if system else (),
                    conda=backend.contents,
                    today=now()[:10],
                    machine=self.machine,
                    fixed=fixed,
                    looked=lookups.look(cell, matrix, fixed, memory=memory, reach=self._reach),
                )
                self._remember(work)
            except PinproofError as error:
                self._problem(cell.id, dict(cell.axes), error)
            else:
                works[cell.id] = self._held(work)
        self._tell(works)
        return works

    def _fixed(self, cell: Cell, python: str) -> tuple[Fixed, ...]:
        """Return what the moving values of `cell` stand for, as the committed lock says.

        A wheelhouse that says it itself goes before that: it has no other files. Commits that
        neither says, and that cannot be asked for, are those of the last run.
        """
        minor = ".".join(cell.axis("python", python).split(".")[:2])
        known = self.house.values.get(cell.id) if self.house is not None else None
        known = known or self.lockfile.fixed(cell, minor, host.machine())
        said = {each.axis for each in known}
        return *known, *(each for each in self._remembered(cell) if each.axis not in said)

    def _remembered(self, cell: Cell) -> Iterator[Fixed]:
        for axis, told in Store(self.options.store).commits(cell.id).items():
            asked = told["asked"]
            if axis != source.ATTENTION and cell.axis(axis) != asked:
                continue
            if not self._reach.has(source.repository(axis, asked)):
                yield Fixed(axis=axis, asked=asked, commit=told["commit"], when="")

    def _remember(self, work: CellWork) -> None:
        """Keep which commits the cell is proven with, for when nobody can be asked."""
        found = {
            axis: {"asked": work.cell.axis(axis), "commit": commit}
            for axis, commit in work.commits.items()
        }
        if work.attention is not None and work.attention.kind is source.Kind.GIT:
            commit = work.attention.identity
            found[source.ATTENTION] = {"asked": work.settings.attention, "commit": commit}
        if found and self._keeps:
            Store(self.options.store).remember_commits(work.cell.id, found)

    def _held(self, work: CellWork) -> CellWork:
        """Give the work what the committed lock holds for its cell, if that is still asked for."""
        if work.settings.backend == "system":
            return work
        held = self.lockfile.recall(work.cell.id, work.request, host.machine())
        return replace(work, held=held, day="") if held else work

    def _tell(self, works: Works) -> None:
        """Note how far the committed lock goes, once for the matrix."""
        name, known = self.chosen.matrix.name, self.lockfile
        own = [work for work in works.values() if work.settings.backend != "system"]
        if not known.entries or not own:
            return
        head = f"lock       {lockfile.DIRECTORY}/{name}.lock.toml of {known.made[:10]}"
        entries = [known.entry(work.cell.id, work.request.python, host.machine()) for work in own]
        if not any(entries):
            targets = ", ".join(f"Python {python} on {place}" for python, place in known.targets)
            self.notes.append(f"{head}: not used, it is for {targets}")
            return
        held = sum(work.held is not None for work in own)
        self.notes.append(f"{head}: {held} of {len(own)} cells")
        stale = [
            entry.cell
            for work, entry in zip(own, entries, strict=True)
            if work.held is None and entry is not None and entry.file
        ]
        if stale:
            some = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if stale[3:] else "")
            self.notes.append(
                f"           stale, so resolved anew: {some}: the matrix asks for something else"
                f" than was locked; renew it: nox -s lock -- --matrix {name}"
            )

    def locked(self, works: Works, known: Known) -> Works:
        """Give each work its lock and its commits, as far as they are known."""
        locked: dict[str, CellWork] = {}
        for cell, work in works.items():
            evidence = known.get((recipe.lock_owner(work.request), Stage.RESOLVE))
            if evidence is None or evidence.outcome is not Outcome.OK:
                locked[cell] = work
                continue
            found = Resolution.from_json(evidence.data)
            archives = {each.name: each for each in found.sources}
            try:
                commits = self._commits(work)
                locked[cell] = replace(work, lock=found.lock, commits=commits, archives=archives)
                self._remember(locked[cell])
            except ResolveError as error:
                self._problem(cell, dict(work.cell.axes), error)
        return locked

    def with_wheels(self, works: Works, known: Known) -> Works:
        """Give each work the sha256 of the wheels that were built for it; `works` if none was."""
        wheels = {
            owner: str(evidence.data["sha256"])
            for (owner, stage), evidence in known.items()
            if stage is Stage.BUILD and evidence.outcome is Outcome.OK
        }
        if not wheels:
            return works
        return {cell: replace(work, built=wheels) for cell, work in works.items()}

    def _commits(self, work: CellWork) -> dict[str, str]:
        """Return the commits that the git references of what is built name now."""
        locked = {each.axis: each.commit for each in work.fixed if each.commit}
        values = {name: axes.parse(name, work.cell.axis(name)) for name in work.needed}
        unknown = {
            name: locked.get(name) or self._commit(value)
            for name, value in values.items()
            if value.kind is axes.Kind.GIT and name not in work.commits
        }
        # What a vLLM asks for was read at a commit: it is built from that one.
        return {**work.commits, **unknown}

    def _problem(self, cell: str, inputs: Mapping[str, Any], error: PinproofError) -> None:
        conflict = isinstance(error, ResolveError) and error.conflict
        self.problems[cell] = Evidence(
            cell=cell,
            stage=Stage.RESOLVE,
            digest=digest_of(inputs),
            outcome=Outcome.FAILED if conflict else Outcome.INFRA,
            reason=error.what,
            data={},
            inputs=inputs,
            machine=self.machine.facts(),
            started=now(),
            seconds=0.0,
        )
