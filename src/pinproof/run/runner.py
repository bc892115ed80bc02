"""Runs the steps of a plan: says what their nox sessions do, and keeps what came of them."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pinproof.audit import arch, library
from pinproof.builds import toolkit
from pinproof.builds.build import TOOLS
from pinproof.builds.cache import Cache
from pinproof.clock import now
from pinproof.errors import InfrastructureError, PinproofError, ResolveError
from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.evidence.store import Store, read_json, write_json, write_text
from pinproof.locks import pipconfig, resolve, wheelhouse
from pinproof.locks.installer import Installer, uv_cache
from pinproof.locks.lock import Lock, Wheel
from pinproof.matrix.matrixfile import Settings
from pinproof.plan import recipe
from pinproof.plan.plan import Step
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage
from pinproof.run import conda_environment, integrity, process
from pinproof.run.environment import Backend, byte_code, forget, isolated_env, shielded
from pinproof.run.execute import Executor, SessionSpec
from pinproof.run.scheduler import Done, Started

#: Inside an environment: which install filled it, and how its files looked then.
MARK, LOOKS = "pinproof-install.json", "pinproof-files.json"


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Executes steps for the cells in `works`; ``backend`` finds that of a cell by its settings."""

    executor: Executor
    works: Mapping[str, CellWork]
    backend: Callable[[Settings], Backend]
    installer: Callable[[], Installer]

    @functools.cached_property
    def _outside(self) -> Mapping[str, str]:
        """What of the caller's environment a cell sees."""
        return isolated_env(os.environ, {})

    def __call__(
        self, lane: Sequence[Step], cancel: threading.Event, started: Started, done: Done
    ) -> None:
        """Execute the steps of `lane` in their order; save and tell the evidence of each.

        Raises InfrastructureError where the store cannot be written: then nothing can be kept.
        """

        def end(step: Step, evidence: Evidence) -> None:
            try:
                evidence = self._concluded(step, evidence)
            except (PinproofError, OSError) as error:  # this cell's, and no other's
                what = error.what if isinstance(error, PinproofError) else str(error)
                evidence = _instead(evidence, Outcome.INFRA, what)
            self.executor.store.save(evidence)
            done(step, evidence)

        sessions = []
        for step in lane:
            work = self.works[step.cells[0]]
            if step.stage is Stage.RESOLVE:
                started(step)
                end(step, self._resolve(step, work, cancel))
                continue
            if step.stage is Stage.BUILD and self._is_archived(step):
                started(step)
                end(step, self.executor.evidence(step, Outcome.OK, "", {}, now(), 0.0))
                continue
            try:
                problem = self._damage(step.owner) if step.stage.measures else ""
                spec = None if problem else self._spec(step, work)
            except PinproofError as error:
                problem, spec = error.what, None  # this cell's, and no other's
            if spec is None:
                started(step)
                end(step, self.executor.evidence(step, Outcome.INFRA, problem, {}, now(), 0.0))
            else:
                sessions.append((step, spec))
        self.executor.execute(sessions, cancel, started, end)

    def _spec(self, step: Step, work: CellWork) -> SessionSpec:
        assert work.lock is not None  # noqa: S101 - a plan has these stages only behind a lock
        match step.stage:
            case Stage.BUILD:
                return self._build_spec(step, work, work.lock)
            case Stage.INSTALL:
                return self._install_spec(step, work, work.lock)
            case _:
                return self._measure_spec(step, work, work.lock)

    def _concluded(self, step: Step, evidence: Evidence) -> Evidence:
        """Look at what a step left that ended OK, before that is believed."""
        if evidence.outcome is not Outcome.OK or step.stage is Stage.RESOLVE:
            return evidence
        if step.stage is Stage.BUILD:
            return self._built(step, evidence)
        home = self.environment(step.owner)
        if step.stage is Stage.INSTALL:
            (home / LOOKS).unlink(missing_ok=True)
            integrity.seal(home)
        damage = self._damage(step.owner) or self._stranger(step, evidence)
        if damage:
            return _instead(evidence, Outcome.INFRA, damage)
        if step.stage is Stage.INSPECT:
            work = self.works[step.cells[0]]
            return with_audit(evidence, work.cell.target, (*self._sites(step.owner), *work.sites))
        if step.stage is Stage.INSTALL:
            write_json(home / MARK, {"install": step.digest}, durable=False)
        return evidence

    def environment(self, owner: str) -> Path:
        """Return the directory of the nox environment of a cell or a build."""
        return self.executor.envdir / owner

    def _sites(self, owner: str) -> list[Path]:
        return sorted(self.environment(owner).glob("lib/python*/site-packages"))

    def _resolve(self, step: Step, work: CellWork, cancel: threading.Event) -> Evidence:
        started, began = now(), time.monotonic()
        log = self.executor.store.log_path(step.owner, step.stage)
        data: dict[str, object] = {}
        try:
            found = resolve.resolve(
                work.request,
                self.installer(),
                held=work.held,
                timeout=step.timeout,
                cancel=cancel,
            )
        except ResolveError as error:
            outcome = Outcome.FAILED if error.conflict else Outcome.INFRA
            reason = error.what if not error.cause else f"{error.what}: {error.cause}"
            write_text(log, f"{error}\n")
        else:
            outcome, reason, data = Outcome.OK, "", found.to_json()
            write_text(log, found.log)
            for note in found.notes:
                self.executor.on_line(step.id, note)
        if cancel.is_set():
            outcome = Outcome.CANCELLED
        seconds = time.monotonic() - began
        return self.executor.evidence(step, outcome, reason, data, started, seconds)

    def _is_archived(self, step: Step) -> bool:
        """Say if a wheelhouse has what the step would build; then it is taken from there."""
        house = self.installer().house
        if house is None:
            return False
        archived = Cache(house.directory / wheelhouse.BUILDS)
        return Cache(self.executor.store.builds).adopt(step.digest, archived) is not None

    def _built(self, step: Step, evidence: Evidence) -> Evidence:
        record = Cache(self.executor.store.builds).find(step.digest)
        if record is None:
            return _instead(evidence, Outcome.FAILED, "the build left no wheel")
        kept = record.to_json()
        data = {name: value for name, value in kept.items() if name not in ("inputs", "schema")}
        return _instead(evidence, Outcome.OK, "", data)

    def _build_spec(self, step: Step, work: CellWork, lock: Lock) -> SessionSpec:
        """Make the build's environment, and call our own `build` in it: it holds the cache."""
        store, installer = self.executor.store, self.installer().reaching(lock.indexes)
        build = next(each for each in work.builds if each.owner == step.owner)
        backend = self.backend(work.settings)
        python = self.environment(build.owner) / "bin" / "python"
        scratch = store.scratch(build.owner, Stage.BUILD)
        write_text(scratch / "lock.txt", lock.text(), durable=False)
        write_json(scratch / "order.json", build.to_json(), durable=False)
        # Wheels alone: a source archive would be run with the passwords of the indexes.
        tools = [installer.uv, "pip", "install", "--only-binary", ":all:", *installer.source_args]
        tools += ["--python", str(python)]
        own = [sys.executable, "-m", "pinproof", "build", "--order", str(scratch / "order.json")]
        return SessionSpec(
            session=build.owner,
            python=backend.python(lock.python),
            venv_backend=backend.nox_fills,
            venv_params=backend.params,
            commands=(
                *backend.install(python, scratch / "lock.txt", lock, installer),
                [
                    *(*tools, *TOOLS, *work.tools.get(build.project, ())),
                    *(() if backend.has_nvcc else toolkit.wanted(build.cuda, os.environ)),
                ],
                [*own, "--python", str(python), "--store", str(store.root), *_sources(installer)],
            ),
            env={
                **self._outside,
                **toolkit.caller(os.environ),
                "PYTHONPATH": str(recipe.SOURCES.parent),
            },
            secrets={**installer.env, **pipconfig.read().pip_env()},
        )

    def _install_spec(self, step: Step, work: CellWork, lock: Lock) -> SessionSpec:
        home = self.environment(step.owner)
        if filled_by(home) != step.digest:
            # Another install, or half of one, may have left files that no wheel knows of.
            shutil.rmtree(home, ignore_errors=True)
        (home / MARK).unlink(missing_ok=True)
        installer = self.installer().reaching(lock.indexes)
        backend = self.backend(work.settings)
        python = home / "bin" / "python"
        lock_file = self.executor.store.scratch(step.owner, step.stage) / "lock.txt"
        write_text(lock_file, lock.text(), durable=False)
        own = [wheel.path for wheel in wheels_of(work, self.executor.store)]
        extra = [[installer.uv, "pip", "install", "--no-deps", "--python", str(python), *own]]
        return SessionSpec(
            session=step.owner,
            python=backend.python(lock.python),
            venv_backend=backend.nox_fills,
            venv_params=backend.params,
            commands=(
                *backend.install(python, lock_file, lock, installer),
                *(extra if own else []),
            ),
            env={**self._outside, "PYTHONPATH": str(recipe.SOURCES.parent)},
            secrets=installer.env,
        )

    def _measure_spec(self, step: Step, work: CellWork, lock: Lock) -> SessionSpec:
        scratch = self.executor.store.scratch(step.owner, step.stage)
        backend = self.backend(work.settings)
        request, out = scratch / "request.json", scratch / "out.json"
        write_json(request, recipe.request_file(work))
        home = self.environment(step.owner)
        words = [str(home / "bin" / "python"), "-m", "pinproof_cell", str(step.stage)]
        words += ["--request", str(request), "--json", str(out)]
        env = cell_env(work, home)
        return SessionSpec(
            session=step.owner,
            python=backend.python(lock.python),
            venv_backend=backend.nox,
            venv_params=backend.params,
            commands=(shielded(words, home, shared(self.executor.store, work)),),
            env={**self._outside, **env},
            out=out,
        )

    def _damage(self, cell: str) -> str:
        """Say which files of the environment are no longer those of its wheels, or ""."""
        home = self.environment(cell)
        sites = self._sites(cell)
        if not sites:
            shutil.rmtree(home, ignore_errors=True)
            return "the environment is not there; it will be made again"
        try:
            inodes = self.executor.store.inodes
            inodes.parent.mkdir(parents=True, exist_ok=True)
            wheels = [
                change for site in sites for change in integrity.check(site, home / LOOKS, inodes)
            ]
            below = conda_environment.check(home, inodes)
        except OSError as error:
            raise InfrastructureError(f"{home} cannot be read: {error}") from None
        changes = [*wheels, *below]
        if not changes:
            return ""
        # The edit went through a hard link into a cache, and would come back from there.
        shutil.rmtree(home, ignore_errors=True)
        conda_environment.forget(below, self.executor.store.conda)
        if wheels:
            process.run(forget((change.package for change in wheels), self.installer()))
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        return f"{changes[0]}{more}; the environment will be made again"

    def _stranger(self, step: Step, evidence: Evidence) -> str:
        """Say which extension a stage loaded that is not the one that was built, or ""."""
        work, cache = self.works[step.cells[0]], Cache(self.executor.store.builds)
        records = [cache.find(build.key) for build in work.builds] if step.stage.measures else []
        built = {
            str(each["file"]): str(each["sha256"])
            for record in records
            if record is not None
            for each in record.libraries
        }
        sites = self._sites(step.owner)
        return integrity.stranger(integrity.loaded(evidence.data), sites, built)


def _sources(installer: Installer) -> tuple[str, ...]:
    """Return the options of our own `build` that say where alone it may look."""
    if installer.house is not None:
        return ("--wheelhouse", str(installer.house.directory))
    return ("--offline",) if installer.offline else ()


def cell_env(work: CellWork, home: Path) -> dict[str, str]:
    """Return what a program in the environment of a cell sees beside what every cell sees."""
    return {
        **dict(work.settings.env),
        "PYTHONPATH": str(recipe.SOURCES.parent),
        "PYTHONPYCACHEPREFIX": str(byte_code(home)),
    }


def shared(store: Store, work: CellWork) -> tuple[Path, ...]:
    """Return the directories that cells share, and that none may write.

    Caches, evidence, and the packages of the interpreter that cells of the system back end are on.
    """
    own = ("evidence", "results", store.inodes.parent.name)
    places = (store.root / name for name in own)
    return (uv_cache(), store.builds, store.conda, *places, *work.sites)


def with_audit(evidence: Evidence, target: str, sites: Iterable[Path]) -> Evidence:
    """Add to what inspect found, which code every library under test holds for `target`.

    `sites` are the site directories that the paths of the document are relative to, the one that an
    import looks into first before the others. Raises InfrastructureError where a library is in none
    of them, OSError where it cannot be read.
    """
    found = evidence.data.get("extensions") or ()
    files = [str(each["path"]) for each in found if ".so" in Path(each["path"]).suffixes]
    if target == "cpu" or not files:
        return evidence
    gpu, places = arch.parse(target), tuple(sites)
    audit = [library.read(_in(places, file), file, gpu).to_json() for file in files]
    return replace(evidence, data={**evidence.data, "audit": audit})


def _in(sites: Iterable[Path], file: str) -> Path:
    for site in sites:
        if (site / file).is_file():
            return site / file
    raise InfrastructureError(f"{file}, which inspect saw, is in no site directory of the cell")


def filled_by(home: Path) -> str:
    """Return the digest of the install that the environment in `home` came from, or ""."""
    mark = read_json(home / MARK)
    return str(mark.get("install", "")) if isinstance(mark, dict) else ""


def wheels_of(work: CellWork, store: Store) -> tuple[Wheel, ...]:
    """Return the wheels that were built for `work`.

    Raises InfrastructureError where one is not the file that its build left; then it is put into
    quarantine, so that the next run builds it anew.
    """
    cache, wheels = Cache(store.builds), []
    for build in work.builds:
        record = cache.find(build.key)
        if record is None:
            raise InfrastructureError(
                f"there is no wheel of {build.source}",
                cause="its build did not run, or the wheel was removed or edited since",
                remedy="run the cell again: it is built anew",
            )
        wheels.append(Wheel(path=str(cache.wheel_path(record)), sha256=record.sha256))
    return tuple(wheels)


def _instead(
    evidence: Evidence, outcome: Outcome, reason: str, data: Mapping[str, object] | None = None
) -> Evidence:
    return replace(evidence, outcome=outcome, reason=reason, data=data or {})
