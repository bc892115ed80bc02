"""matrix.toml, format 1: what it may say, and what it gives to each cell."""

# ruff: noqa: RUF009 - `option` is dataclasses.field

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pinproof.errors import ConfigurationError, did_you_mean
from pinproof.matrix import axis, facts, matrixcheck, schema
from pinproof.matrix.schema import TEXT, Form, Where, option
from pinproof.plan.stage import TIMEOUTS, Stage

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell

FORMAT = 1

#: How many combinations a matrix may have before its limit must be raised on purpose.
LIMIT = 5000

#: What no limit may be above: a run holds every cell in memory.
LIMIT_MOST = 1_000_000

#: Names become file names, and words on command lines.
_NAME = Form(
    r"[a-z0-9][a-z0-9-]{0,39}",
    "lower-case letters, digits and dashes, 40 at most, the first no dash",
)
_TARGET = Form(r"cpu|sm_[1-9]\d{1,2}", '"cpu", or an architecture such as "sm_120"')
_PACKAGE = Form(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "the name of a package")
_VARIABLE = Form(r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and underscores, the first no digit")
_CONDA = Form(r"([a-z0-9][a-z0-9._-]{0,39})?", "the name of a specification in envs/")
_ATTENTION = Form(r"(git:\S+|git\+\S+@\S+)?", "git:REF or git+URL@REF")
_DAY = Form(r"(\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]))?", "a day, such as 2026-11-23")
_ADDRESS = Form(
    r"((https?|file)://[^\s@?#]+)?",
    "an address that starts with https://, http:// or file://, without a password",
)
_STAGES = tuple(stage.value for stage in Stage)

#: The name of a list in [axes], in place of a list.
_LIST_NAME = {"type": "string"}

Use = Literal["serving", "training", "everything"]
Check = Literal["correctness", "throughput", "sanitize"]
Backend = Literal["uv", "system", "conda"]
Profile = Literal["stock", "serving", "custom"]

#: The axes whose packages can be built from source.
BUILT = ("flash-attn", "vllm")


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What a matrix runs on; its name is the architecture, "cpu" or "sm_120"."""

    description: str = option(about="the hardware, for people", default="")


@dataclass(frozen=True, kw_only=True, eq=False)
class Exclude:
    """Combinations that a matrix does not want."""

    when: str = option(about="which combinations")
    reason: str = option(about="why, in one line; it stands in the table", form=TEXT)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What makes a run a success."""

    require: str = option(
        about='which cells must be SAFE: "all", or an expression', default="all", form=TEXT
    )
    uses: tuple[Use, ...] = option(
        about="what a cell must be safe for", default=("serving",), filled=True
    )
    min_throughput: float | None = option(
        about="the least ratio to the Triton baseline; SLOW below it", default=None, above=0
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Override:
    """Settings of some cells of a matrix; a later override wins over an earlier one."""

    select: str = option(about="the cells, as an expression")
    backend: Backend | None = option(about="how environments are made", default=None)
    conda: str = option(
        about="the conda environment of envs/ that a cell stands on", default="", form=_CONDA
    )
    profile: Profile | None = option(about="what source builds contain", default=None)
    env: Mapping[str, str] = option(about="environment variables", default={}, keys=_VARIABLE)
    build_env: Mapping[str, str] = option(
        about="environment variables of its source builds", default={}, keys=_VARIABLE
    )
    patches: Mapping[str, tuple[str, ...]] = option(
        about="patch files for the source of each project that is built, from the project's root",
        default={},
        keys=BUILT,
    )
    attention: str = option(
        about="what a vLLM that is built takes its FlashAttention from, with code for the GPU",
        default="",
        form=_ATTENTION,
    )
    requirements: tuple[str, ...] = option(about="more to install", default=())
    without: tuple[str, ...] = option(
        about="packages to leave out, though others ask for them", default=(), form=_PACKAGE
    )
    timeouts: Mapping[str, float] = option(
        about="seconds per stage", default={}, keys=_STAGES, above=0
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """A named set of combinations for one target, and what is done with them."""

    name: str = option(about="short; it becomes file names", form=_NAME)
    target: str = option(about="what it runs on, one of [targets]", form=_TARGET)
    description: str = option(about="what it is for", default="")
    default: bool = option(about="the one to run on its target if none is named", default=False)
    axes: Mapping[str, tuple[str, ...]] = option(
        about="the values of each axis, or the name of a list in [axes]",
        default={},
        keys=axis.AXES,
        filled=True,
        also=_LIST_NAME,
    )
    zip: tuple[tuple[str, ...], ...] = option(
        about="groups of axes that move together, value by value", default=(), filled=True
    )
    include: tuple[Mapping[str, str], ...] = option(
        about="single combinations beside the product", default=(), keys=axis.AXES, filled=True
    )
    exclude: tuple[Exclude, ...] = option(about="combinations not wanted", default=())
    checks: tuple[Check, ...] = option(
        about="what is done with an installed cell", default=("correctness", "throughput")
    )
    policy: Policy = option(about="what makes a run a success", default=Policy())
    overrides: tuple[Override, ...] = option(about="settings of some cells", default=())
    backend: Backend = option(about="how environments are made", default="uv")
    conda: str = option(
        about='the conda environment of envs/ that cells stand on; "" is that of their cuda axis',
        default="",
        form=_CONDA,
    )
    profile: Profile = option(
        about='what source builds contain: "serving" leaves training out', default="stock"
    )
    timeouts: Mapping[str, float] = option(
        about="seconds per stage", default={}, keys=_STAGES, above=0
    )
    exclude_newer: str = option(about="resolve as on this day", default="", form=_DAY)
    limit: int = option(
        about="the most combinations that it may have", default=LIMIT, above=0, most=LIMIT_MOST
    )

    @functools.cached_property
    def dimensions(self) -> tuple[axis.Dimension, ...]:
        """What the product runs over: the axes, those of a zip group as one."""
        return axis.dimensions(self.axes, self.zip)

    def on(self, backend: Backend | None) -> Matrix:
        """Return the matrix with `backend` for every cell, whatever it says; None changes nothing.

        Raises ConfigurationError for a name that is no back end.
        """
        if backend is None:
            return self
        if backend not in get_args(Backend):
            known = ", ".join(get_args(Backend))
            raise ConfigurationError(
                f"unknown back end {backend!r}.{did_you_mean(backend, get_args(Backend))}",
                remedy=f"use one of: {known}",
            )
        overrides = tuple(replace(each, backend=None) for each in self.overrides)
        return replace(self, backend=backend, overrides=overrides)

    def sanitized(self) -> Matrix:
        """Return the matrix with the stage `sanitize` among its checks."""
        return replace(self, checks=tuple(dict.fromkeys((*self.checks, "sanitize"))))

    @property
    def size(self) -> int:
        """How many combinations it has, excluded ones too, without expanding it."""
        product = math.prod(map(len, self.dimensions)) if self.axes else 0
        return product + len(self.include)


@dataclass(frozen=True, kw_only=True, eq=False)
class Indexes:
    """Where that is published which no release index has; "" where the file does not say."""

    nightly: str = option(
        about="the index of torch's nightlies, without its last part, the build (cpu, cu130)",
        default="",
        form=_ADDRESS,
    )
    vllm: str = option(
        about="the index of vLLM's wheels of single commits, without its last part, the commit",
        default="",
        form=_ADDRESS,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixFile:
    """A whole matrix file. ``axes`` are named lists of values that matrices may refer to."""

    format: int = option(about="the format of this file, 1")
    targets: Mapping[str, Target] = option(
        about="what matrices may run on", keys=_TARGET, filled=True
    )
    axes: Mapping[str, Mapping[str, tuple[str, ...]]] = option(
        about="named lists of values, by axis", default={}, keys=axis.AXES, filled=True
    )
    matrix: tuple[Matrix, ...] = option(about="the matrices", filled=True)
    indexes: Indexes = option(
        about="where nightlies and single commits are published", default=Indexes()
    )

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrices in the order of the file (the tables are called ``[[matrix]]``)."""
        return self.matrix

    def named(self, name: str) -> Matrix:
        """Return the matrix called `name`. Raises ConfigurationError for an unknown one."""
        known = {matrix.name: matrix for matrix in self.matrix}
        if name not in known:
            raise ConfigurationError(
                f"there is no matrix {name[:60]!r}.{did_you_mean(name[:60], known)}",
                remedy=f"use one of: {', '.join(known)}",
            )
        return known[name]

    def default_for(self, target: str) -> Matrix | None:
        """Return the matrix to run on `target` if none is named: the default, or the only one."""
        fitting = [matrix for matrix in self.matrix if matrix.target == target]
        chosen = [matrix for matrix in fitting if matrix.default] or fitting
        return chosen[0] if len(chosen) == 1 else None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a matrix and its overrides give to one cell.

    ``timeouts`` names every stage, ``patches`` are project and file. ``conda`` is the environment
    that a cell of that back end stands on, "" where nothing names one. ``attention`` is the source
    of a built vLLM's FlashAttention, "" for its own.
    """

    backend: Backend
    profile: Profile
    env: tuple[tuple[str, str], ...]
    build_env: tuple[tuple[str, str], ...]
    patches: tuple[tuple[str, str], ...]
    requirements: tuple[str, ...]
    without: tuple[str, ...]
    timeouts: tuple[tuple[str, float], ...]
    exclude_newer: str
    conda: str = ""
    attention: str = ""


def settings(matrix: Matrix, cell: Cell) -> Settings:
    """Return the settings of `cell`: those of its matrix, then each override that selects it."""
    chosen = [each for each in matrix.overrides if facts.selector(each.select).holds(cell.look())]
    layers: list[Matrix | Override] = [matrix, *chosen]
    timeouts = {stage.value: seconds for stage, seconds in TIMEOUTS.items()}
    env: dict[str, str] = {}
    build_env: dict[str, str] = {}
    for layer in layers:
        timeouts |= layer.timeouts
    for override in chosen:
        env |= override.env
        build_env |= override.build_env
    return Settings(
        backend=next(layer.backend for layer in reversed(layers) if layer.backend),
        conda=next((layer.conda for layer in reversed(layers) if layer.conda), _of_cuda(cell)),
        profile=next(layer.profile for layer in reversed(layers) if layer.profile),
        env=tuple(sorted(env.items())),
        build_env=tuple(sorted(build_env.items())),
        patches=tuple(
            (project, file)
            for each in chosen
            for project, files in each.patches.items()
            for file in files
        ),
        requirements=tuple(text for each in chosen for text in each.requirements),
        without=tuple(dict.fromkeys(name for each in chosen for name in each.without)),
        timeouts=tuple(timeouts.items()),
        exclude_newer=matrix.exclude_newer,
        attention=next((each.attention for each in reversed(chosen) if each.attention), ""),
    )


def _of_cuda(cell: Cell) -> str:
    """Return the name of the conda environment that goes with the cuda axis of `cell`, or ""."""
    version = axis.parse("cuda", cell.axis("cuda", axis.implied("cuda"))).version
    return f"cuda-{version.major}.{version.minor}" if version else ""


def load(path: Path) -> MatrixFile:
    """Read and check a matrix file.

    Raises ConfigurationError, with the place in the file, for anything that is wrong with it:
    no combination is tried before the whole file is known to be sound.
    """
    where = Where(path.name)
    document = schema.read_toml(path)
    if document.get("format", FORMAT) != FORMAT:
        raise where.key("format").error(
            f"this Pinproof reads format {FORMAT} only", remedy="update Pinproof, or the file"
        )
    _put_named_lists(document, where)
    file = schema.convert(MatrixFile, document, where)
    matrixcheck.check(file, where)
    return file


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a matrix file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Pinproof matrix file, format {FORMAT}",
        **schema.json_schema(MatrixFile),
    }


def _put_named_lists(document: dict[str, Any], where: Where) -> None:
    """Put the lists of [axes] where a matrix names them. The shape of it all is not checked yet."""
    lists = document.get("axes")
    matrices = document.get("matrix")
    for index, matrix in enumerate(matrices if isinstance(matrices, list) else ()):
        axes = matrix.get("axes") if isinstance(matrix, dict) else None
        if not isinstance(axes, dict):
            continue
        for name, value in axes.items():
            if not isinstance(value, str):
                continue
            known = lists.get(name) if isinstance(lists, dict) else None
            known = known if isinstance(known, dict) else {}
            if value not in known:
                place = where.key("matrix").item(index, matrix).key("axes").key(name)
                hint = did_you_mean(value[:60], known)
                raise place.error(
                    f"there is no list {value[:60]!r} in [axes.{name}].{hint}",
                    remedy='a single value is a list too: ["2.13.0"]',
                )
            axes[name] = known[value]
