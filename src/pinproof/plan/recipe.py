"""What each stage of a cell reads, which names its evidence, and what it runs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinproof.builds import build as builds
from pinproof.builds.build import Build, Patch
from pinproof.builds.lookups import Looked
from pinproof.builds.source import Source
from pinproof.evidence.evidence import digest_of
from pinproof.locks import lock as locks
from pinproof.locks.fixed import Fixed, applied
from pinproof.locks.lock import Lock, Pin, Request, Wheel
from pinproof.matrix import axis as axes
from pinproof.matrix import matrixfile, rules
from pinproof.matrix.axis import Kind
from pinproof.plan import plan
from pinproof.plan.stage import Stage

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell
    from pinproof.matrix.matrixfile import Matrix, Settings
    from pinproof.run.machine import Machine

#: Axis values that stand for another release tomorrow.
MOVING = (Kind.SPECIFIER, Kind.NIGHTLY)

SOURCES = Path(__file__).parents[2] / "pinproof_cell"
#: The attention suite: in a checkout beside `src`, in an installed wheel inside the package.
SUITES = (SOURCES.parent.parent / "tests" / "attention", SOURCES / "suite")


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """A cell with everything that its stages need to know.

    ``day`` is set where an axis names what moves (a range, a nightly): such a request is asked
    again every day. ``fixed`` is what the committed lock says of the cell's moving values, ``held``
    what it says of its packages. ``lock`` is None until its request was resolved, ``commits`` are
    what the git references of its builds name, ``archives`` the source archives of its releases,
    ``tools`` what a project says that it is built with, ``built`` the sha256 of each wheel by its
    build's owner as far as it is there. ``system`` is what the interpreter of the `system` back end
    brings (name to version), ``records`` the sha256 of each RECORD of these, ``sites`` the
    directories that they lie in. ``conda`` is the digest of the conda packages that the environment
    stands on, "" without any, ``cuda`` the release of this machine's toolkit where something is
    built with the installed one, and ``attention`` what a built vLLM takes its FlashAttention from,
    None for its own.
    """

    cell: Cell
    matrix: Matrix
    settings: Settings
    request: Request
    system: Mapping[str, str] = field(default_factory=dict)
    records: Mapping[str, str] = field(default_factory=dict)
    sites: tuple[Path, ...] = ()
    conda: str = ""
    cuda: str = ""
    day: str = ""
    fixed: tuple[Fixed, ...] = ()
    held: Lock | None = None
    lock: Lock | None = None
    commits: Mapping[str, str] = field(default_factory=dict)
    built: Mapping[str, str] = field(default_factory=dict)
    compiler: str = ""
    platform: str = ""
    patches: Mapping[str, tuple[Patch, ...]] = field(default_factory=dict)
    tools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    archives: Mapping[str, Pin] = field(default_factory=dict)
    attention: Source | None = None

    @property
    def timeouts(self) -> dict[str, float]:
        """Seconds per stage."""
        return dict(self.settings.timeouts)

    @property
    def builds(self) -> tuple[Build, ...]:
        """The source builds of the cell; none before its lock is known."""
        if self.lock is None:
            return ()
        torch = self.lock.version("torch") or self.system.get("torch", "")
        return tuple(
            builds.of(
                self.cell,
                project,
                self.lock,
                torch=torch,
                profile=self.settings.profile,
                commit=self.commits.get(project, ""),
                archive=self.archives.get(project),
                cuda=self.cuda,
                attention=self.attention,
                env=self.settings.build_env,
                patches=self.patches.get(project, ()),
                compiler=self.compiler,
                platform=self.platform,
            )
            for project in self.needed
        )

    @property
    def needed(self) -> tuple[str, ...]:
        """The axes whose value is built from source for the cell."""
        return builds.needed(applied(self.cell, self.fixed))

    def pinned(self, wheels: Iterable[Wheel]) -> Lock | None:
        """Return the lock with the `wheels` that were built for the cell: what the pins hold."""
        if self.lock is None:
            return None
        built = (
            Pin(name=wheel.name, version=wheel.version, sha256=wheel.sha256, file=wheel.file)
            for wheel in wheels
        )
        return replace(self.lock, product=(*self.lock.product, *built))

    @property
    def resolve_inputs(self) -> dict[str, Any]:
        """What decides the lock."""
        held = hashlib.sha256(self.held.text().encode()).hexdigest() if self.held else ""
        moving = {"day": self.day, "committed lock": held}
        return {**self.request.inputs(), **{name: text for name, text in moving.items() if text}}

    @property
    def checks(self) -> tuple[Stage, ...]:
        """The measuring stages that the matrix asks for, in their order."""
        return tuple(stage for stage in Stage if stage in self.matrix.checks)


def lock_owner(request: Request) -> str:
    """Return the name that a lock has in the plan: cells with equal requests share it."""
    return f"lock-{request.digest[:8]}"


def of(
    cell: Cell,
    matrix: Matrix,
    *,
    python: str,
    system: Mapping[str, str] | None = None,
    records: Mapping[str, str] | None = None,
    sites: Iterable[Path] = (),
    conda: str = "",
    today: str = "",
    machine: Machine | None = None,
    fixed: tuple[Fixed, ...] = (),
    looked: Looked | None = None,
) -> CellWork:
    """Return the work of `cell` before anything is resolved; `python` is the default version.

    `system` holds name and version of what the interpreter of the `system` back end brings, and
    `records` the sha256 of each RECORD of these, `sites` where they lie; `conda` is the digest of
    its conda packages.
    `machine` is the one that builds what has no wheel. `fixed` is what its moving values stand
    for, and `looked` what `lookups.look` saw of its builds, which a cell without any does not need.
    """
    settings = matrixfile.settings(matrix, cell)
    asked, cell = cell, applied(cell, fixed)
    built = builds.needed(cell)
    if built and looked is None:
        raise ValueError(f"what the builds of {cell.id} stand on was not looked up")
    looked = looked or Looked()
    found = looked.vllm
    # What is built is not resolved: its wheel comes on top, with the packages that it imports.
    resolved = replace(cell, axes=tuple(pair for pair in cell.axes if pair[0] not in built))
    more = tuple(name for project in built for name in builds.RUNTIME.get(project, ()))
    more += found.runtime if found else ()
    request = locks.request(
        resolved,
        replace(settings, requirements=(*settings.requirements, *more)),
        rules.shipped().requirements(asked),
        python=python,
        system=system,
        exclude_newer=settings.exclude_newer or None,
        indexes=[each.index for each in fixed if each.index],
        sources=tuple(
            f"{value.axis}{'==' if value.kind is Kind.VERSION else ''}{value.text}"
            for value in (axes.parse(name, cell.axis(name)) for name in built)
            if value.kind is not Kind.GIT
        ),
    )
    moves = any(axes.parse(name, text).kind in MOVING for name, text in resolved.axes)
    return CellWork(
        cell=asked,
        matrix=matrix,
        settings=settings,
        request=request,
        fixed=fixed,
        system=system or {},
        records=records or {},
        sites=tuple(sites),
        conda=conda,
        cuda=looked.cuda,
        day=today if moves else "",
        # The compiler of a conda environment is one of its packages.
        compiler=f"conda {conda[:16]}" if conda else machine.gcc if machine else "",
        platform=machine.platform if machine else "",
        commits={"vllm": found.commit} if found else {},
        tools={"vllm": found.build} if found else {},
        attention=looked.attention,
        patches=looked.patches,
    )


def resolving(work: CellWork) -> plan.Work:
    """Return the part of the plan that comes before a lock is known."""
    owner, inputs = lock_owner(work.request), work.resolve_inputs
    timeout = work.timeouts[Stage.RESOLVE]
    return plan.Work(
        cell=work.cell.id,
        target=work.cell.target,
        stages=((Stage.RESOLVE, owner, inputs, timeout),),
    )


def everything(
    work: CellWork, machine: Machine, *, until: Stage | None = None, ready: str = ""
) -> plan.Work:
    """Return the whole way of a cell; `ready` is the install whose environment is on disk."""
    last = until or Stage.SANITIZE
    stages = [
        (stage, owner, inputs, work.timeouts[stage])
        for stage, owner, inputs in _stages(work, machine)
        if stage.position <= last.position
    ]
    return plan.Work(
        cell=work.cell.id,
        target=work.cell.target,
        stages=tuple(stages),
        environment_ready=ready,
    )


def _stages(
    work: CellWork, machine: Machine
) -> Iterator[tuple[Stage, str, Mapping[str, Any] | None]]:
    yield Stage.RESOLVE, lock_owner(work.request), work.resolve_inputs
    cell = work.cell.id
    if work.lock is None:
        for stage in (Stage.INSTALL, *((Stage.INSPECT,) if work.checks else ()), *work.checks):
            yield stage, cell, None
        return
    for build in work.builds:
        yield Stage.BUILD, build.owner, build.inputs()
    if any(build.owner not in work.built for build in work.builds):
        # Not the key of a build but its bytes are what the cell runs.
        for stage in (Stage.INSTALL, *((Stage.INSPECT,) if work.checks else ()), *work.checks):
            yield stage, cell, None
        return
    install = installed(work, work.lock)
    yield Stage.INSTALL, cell, install
    if not work.checks:
        return
    seen = {
        "install": digest_of(install),
        "cell code": code_digest(),
        "machine": machine.facts(),
        "environment": dict(work.settings.env),
    }
    yield Stage.INSPECT, cell, seen
    for stage in work.checks:
        # What a sanitizer sees is the same whatever a cell is for.
        uses = {} if stage is Stage.SANITIZE else {"uses": list(work.matrix.policy.uses)}
        yield stage, cell, seen | uses


def installed(work: CellWork, lock: Lock) -> dict[str, Any]:
    """Return what decides the contents of the cell's environment."""
    return {
        "back end": work.settings.backend,
        "python": lock.python,
        "packages": {pin.name: pin.version for pin in lock.pins},
        "system": {name: work.system[name] for name in ("torch", "triton") if name in work.system},
        "lock": hashlib.sha256(lock.text().encode()).hexdigest(),
        # A package that was built anew under its old version has another RECORD.
        "everything of the system": digest_of([dict(work.system), dict(work.records)]),
        "wheels": [work.built[build.owner] for build in work.builds],
        **({"conda": work.conda} if work.conda else {}),
    }


def request_file(work: CellWork) -> dict[str, Any]:
    """Return what a measuring stage is told, schema 1 of `pinproof_cell.request`."""
    return {
        "schema": 1,
        "cell": work.cell.id,
        "target": work.cell.target,
        "axes": dict(work.cell.axes),
        "uses": list(work.matrix.policy.uses),
        "suite_dir": str(suite()),
        "without": {build.project: list(build.knobs.without) for build in work.builds},
        "seed": 0,
    }


def suite() -> Path:
    """Return the directory of the attention suite."""
    return next((path for path in SUITES if path.is_dir()), SUITES[0])


@functools.cache
def code_digest() -> str:
    """Return the sha256 of all code that runs inside cells: other code, other evidence."""
    digest = hashlib.sha256()
    for directory in (SOURCES, suite()):
        for path in sorted(directory.rglob("*")):
            if path.suffix in (".py", ".toml", ".json") and "__pycache__" not in path.parts:
                digest.update(path.relative_to(directory).as_posix().encode() + b"\0")
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()
