"""What a user takes away of cells that are SAFE: their pins, and the very files they install."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pinproof.builds.cache import Cache
from pinproof.clock import now
from pinproof.evidence.store import Store
from pinproof.locks import archive as archives
from pinproof.locks import collect, gather, wheelhouse
from pinproof.locks import installer as installers
from pinproof.locks.archive import Proven
from pinproof.locks.conda import kept
from pinproof.locks.conda.spec import this_platform
from pinproof.locks.fixed import Fixed
from pinproof.locks.gather import Tell
from pinproof.locks.lock import Lock
from pinproof.locks.resolution import Resolution
from pinproof.locks.wheelhouse import House
from pinproof.matrix import matrixfile
from pinproof.options import Options
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage
from pinproof.report import pins
from pinproof.report.results import Row
from pinproof.run import conda_environment, runner
from pinproof.run.conda_environment import Conda
from pinproof.workflow import recall

#: What stands for the best cell of the matrix, in the place of an id.
BEST = "best"

#: In a checkout: what Pinproof itself depends on. An installed Pinproof has that already.
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class _Chosen:
    """A cell with its judgement and evidence, and what was to be done for it."""

    row: Row
    work: CellWork | None


def pin(options: Options, out_dir: Path) -> tuple[Path, ...]:
    """Write the pins of the chosen cell, or of the best one, and return the files.

    Raises UnsafePinError where it is not SAFE.
    """
    (chosen,) = _chosen(options)
    return _pin(options, chosen, out_dir)


def archive(options: Options, out_dir: Path, tell: Tell = gather.silent) -> House:
    """Put the files of the chosen cells, or of the best one, into the archive in `out_dir`.

    Beside them lie the pins of each. Raises UnsafePinError where one is not SAFE, before anything
    is fetched, and what `archives.add` raises.
    """
    chosen = list(_chosen(options))
    for each in chosen:
        pins.require_safe(each.row.cell, each.row.judgement, "archived")
    house = wheelhouse.load(options.wheelhouse) if options.wheelhouse else None
    archived = archives.add(
        out_dir,
        [_proven(each.row, each.work) for each in chosen if each.work],
        built=Cache(Store(options.store).builds),
        installer=installers.installer(
            offline=options.offline,
            house=house,
            named=matrixfile.load(options.matrix_file).indexes,
        ),
        requirements=collect.host_requirements(PYPROJECT) if PYPROJECT.is_file() else (),
        tell=tell,
    )
    written = {}
    for each in chosen:
        if each.work and (below := _below(options, each.work)):
            kept.keep(below.lock.of(this_platform()), Store(options.store).conda, out_dir)
        cell = each.row.cell.id
        written[cell] = _pin(options, each, out_dir / "pins" / cell)
    return archives.seal(archived, written)


def _chosen(options: Options) -> Iterator[_Chosen]:
    for name in options.cells or (BEST,):
        proof = recall(replace(options, cells=() if name == BEST else (name,)))
        judged = {row.cell.id: row for row in proof.rows}
        if name == BEST:
            name = pins.best((row.cell, row.judgement) for row in proof.rows).id
        yield _Chosen(judged[name], proof.works.get(name))


def _pin(options: Options, chosen: _Chosen, out_dir: Path) -> tuple[Path, ...]:
    row, work = chosen.row, chosen.work
    pins.require_safe(row.cell, row.judgement)
    lock = work.pinned(runner.wheels_of(work, Store(options.store))) if work else None
    return pins.write(
        row.cell,
        row.judgement,
        row.evidence,
        lock or Lock(python=""),
        out_dir,
        system=work.system if work else None,
        env=dict(work.settings.env) if work else {},
        without=work.settings.without if work else (),
        sources=installers.installer(offline=options.offline).sources,
        conda=below.path if work and (below := _below(options, work)) else None,
    )


def _below(options: Options, work: CellWork) -> Conda | None:
    """Return what a cell of the conda back end stands on; its lock is the one that was proven."""
    if work.settings.backend != "conda":
        return None
    return conda_environment.named(work.settings.conda, options.store)


def _proven(row: Row, work: CellWork) -> Proven:
    return Proven(
        cell=row.cell.id,
        matrix=row.cell.matrix,
        request=work.request,
        resolution=Resolution.from_json(row.evidence[Stage.RESOLVE].data),
        builds=tuple(build.key for build in work.builds),
        values=(*work.fixed, *_commits(work)),
    )


def _commits(work: CellWork) -> Iterator[Fixed]:
    """Yield what the git references of its builds named, where no lock has said it."""
    locked = {each.axis for each in work.fixed}
    for axis, commit in work.commits.items():
        if axis not in locked:
            yield Fixed(axis=axis, asked=work.cell.axis(axis), commit=commit, when=now())
