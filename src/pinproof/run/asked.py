"""What is refused of a run before any work is done, and what is told beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from packaging.utils import canonicalize_name

from pinproof.builds import build as builds
from pinproof.clock import now
from pinproof.errors import ConfigurationError
from pinproof.matrix import axis as axes
from pinproof.matrix import matrixfile
from pinproof.matrix.matrixfile import Matrix, Override
from pinproof.matrix.selection import Selection
from pinproof.options import Options, root
from pinproof.plan.stage import Stage


def check(options: Options, chosen: Selection) -> None:
    """Raise ConfigurationError for what is asked for and could have no effect, or no meaning."""
    matrix = chosen.matrix.on(cast("Any", options.backend))
    _check_files(matrix)
    backends = {matrixfile.settings(matrix, cell).backend for cell in chosen.tried}
    if options.python and backends and "system" not in backends:
        raise ConfigurationError(
            f"--python {options.python} is for the back end `system`, and no cell has that one",
            remedy="add --backend system, or leave --python out: the python axis chooses it then",
        )
    until = options.until
    missing = until is not None and until.value not in matrix.checks
    if until is not None and until.needs_target and missing:
        raise ConfigurationError(
            f"--until {until}: the matrix {matrix.name} has no stage {until}",
            cause=f"its checks are {', '.join(matrix.checks) or 'none'}",
            remedy="add --sanitize"
            if until is Stage.SANITIZE
            else f"add {until} to its checks, or name an earlier stage",
        )


def notes(options: Options, chosen: Selection) -> Iterator[str]:
    """Yield what a user should know of the request as lines."""
    if not chosen.matrix.checks:
        yield f"checks     none: no cell of {chosen.matrix.name} can be found SAFE"
    left_out = [name for each in chosen.matrix.overrides for name in each.without]
    if any(canonicalize_name(name) == "torch" for name in left_out):
        yield "without    torch: such a cell can be tested only where something else brings it one"
    values = {pair for cell in chosen.tried for pair in cell.axes}
    days = {text: axes.parse(name, text).day for name, text in values if "@" in text}
    for text in sorted(text for text, day in days.items() if day > now()[:10]):
        yield f"nightly    {text} lies in the future"
    if options.until is Stage.BUILD and not any(map(builds.needed, chosen.tried)):
        yield "until      build: no cell has anything to build, so this ends with resolve"


def _check_files(matrix: Matrix) -> None:
    """See that whatever the matrix names in the project is there, also for cells not chosen."""
    from pinproof.locks.conda import spec

    project = root().resolve()
    layers: list[Matrix | Override] = [matrix, *matrix.overrides]
    for layer in layers:
        if layer.conda:
            spec.named(spec.standing_for(layer.conda, project), project)
    for override in matrix.overrides:
        for name in (name for names in override.patches.values() for name in names):
            path = (project / name).resolve()
            if not path.is_relative_to(project):
                what = f"the patch {name} lies outside of the project"
                raise ConfigurationError(what, remedy=f"copy it to a place below {project}")
            if not path.is_file():
                raise ConfigurationError(f"there is no patch {path}")
