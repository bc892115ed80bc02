"""The checks of a matrix file that need no expansion: all of them before any work starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from pinproof.errors import did_you_mean
from pinproof.matrix import axis, facts, rules
from pinproof.matrix.axis import Pair
from pinproof.matrix.schema import Where

if TYPE_CHECKING:
    from pinproof.matrix.matrixfile import Matrix, MatrixFile, Override


def check(file: MatrixFile, where: Where) -> None:
    """Raise ConfigurationError, with the place, for the first thing that is wrong with a file."""
    for name, lists in file.axes.items():
        for label, values in lists.items():
            _check_values(name, values, where.key("axes").key(name).key(label))
    defaults: dict[str, str] = {}
    names: set[str] = set()
    for index, matrix in enumerate(file.matrix):
        place = where.key("matrix").item(index, {"name": matrix.name})
        if matrix.name in names:
            raise place.error("another matrix has the same name")
        names.add(matrix.name)
        if matrix.target not in file.targets:
            hint = did_you_mean(matrix.target, file.targets)
            raise place.key("target").error(
                f"there is no target {matrix.target!r}.{hint}",
                remedy=f"use one of: {', '.join(file.targets)}",
            )
        if matrix.default and defaults.setdefault(matrix.target, matrix.name) != matrix.name:
            raise place.key("default").error(
                f"{defaults[matrix.target]!r} is the default of {matrix.target} already"
            )
        _check_day(matrix.exclude_newer, place.key("exclude-newer"))
        _check_combinations(matrix, place)
        _check_expressions(matrix, place)


def _check_day(text: str, where: Where) -> None:
    try:
        if text:
            date.fromisoformat(text)
    except ValueError:
        raise where.error(f"{text!r} names no day of the calendar") from None


def check_size(matrix: Matrix, limit: int, where: Where) -> None:
    """Raise ConfigurationError where a matrix has more than `limit` combinations."""
    if matrix.size > limit:
        raise where.error(
            f"has {matrix.size:,} combinations; the limit is {limit:,}",
            remedy="zip axes that belong together, drop values, or raise its limit",
        )


def describe(names: frozenset[str], values: Mapping[str, Sequence[str]], *, most: int = 6) -> str:
    """Say which values exist for what an expression reads, where it matched nothing."""
    parts = []
    for name in [name for name in values if name in names] or values:
        known = list(dict.fromkeys(values[name]))
        more = f", ... ({len(known)} in all)" if len(known) > most else ""
        parts.append(f"{name} {', '.join(known[:most])}{more}")
    return "; ".join(parts)


def _check_combinations(matrix: Matrix, where: Where) -> None:
    if not matrix.axes and not matrix.include:
        raise where.error("has no combinations", remedy="give it axes, or include some")
    for name, values in matrix.axes.items():
        _check_values(name, values, where.key("axes").key(name))
    _check_zip(matrix, where.key("zip"))
    check_size(matrix, matrix.limit, where)
    for dimension in matrix.dimensions:
        seen: dict[frozenset[Pair], str] = {}
        for pairs in dimension:
            text = ", ".join(f"{name} {value}" for name, value in pairs)
            if (first := seen.setdefault(axis.meaning(pairs), text)) is not text:
                place = where.key("axes").key(pairs[0][0])
                raise place.error(f"{text} is there twice (as {first})")
    _check_include(matrix, where.key("include"))
    if not all("torch" in axes for axes in (matrix.axes or {"torch": ()}, *matrix.include)):
        raise where.error("every combination needs a torch", remedy="add a torch axis")


def _check_values(name: str, values: Sequence[str], where: Where) -> None:
    for index, text in enumerate(values):
        with where.item(index).named():
            axis.parse(name, text)


def _check_zip(matrix: Matrix, where: Where) -> None:
    seen: set[str] = set()
    for index, group in enumerate(matrix.zip):
        place = where.item(index)
        for name in group:
            if name not in matrix.axes:
                hint = did_you_mean(name[:60], matrix.axes)
                raise place.error(f"{name[:60]!r} is not one of the axes.{hint}")
            if name in seen:
                raise place.error(f"{name!r} is in a zip group already")
            seen.add(name)
        if len({len(matrix.axes[name]) for name in group}) > 1:
            counts = ", ".join(f"{name} has {len(matrix.axes[name])}" for name in group)
            raise place.error(f"zipped axes need equally many values: {counts}")


def _check_include(matrix: Matrix, where: Where) -> None:
    """See that no combination is there twice, without expanding the product."""
    known: set[frozenset[Pair]] = set()
    for index, axes in enumerate(matrix.include):
        place = where.item(index)
        for name, text in axes.items():
            with place.key(name).named():
                axis.parse(name, text)
        if axis.meaning(axes.items()) in known or _in_product(matrix, axes):
            raise place.error("this combination is in the matrix already")
        known.add(axis.meaning(axes.items()))


def _in_product(matrix: Matrix, axes: Mapping[str, str]) -> bool:
    rest = axis.meaning(axes.items())
    for dimension in matrix.dimensions:
        names = {name for name, _ in dimension[0]}
        part = frozenset(pair for pair in rest if pair[0] in names)
        if part not in {axis.meaning(pairs) for pairs in dimension}:
            return False
        rest -= part
    return bool(matrix.axes) and not rest


def _check_expressions(matrix: Matrix, where: Where) -> None:
    for index, exclude in enumerate(matrix.exclude):
        place = where.key("exclude").item(index).key("when")
        with place.named():
            names = facts.selector(exclude.when).names
        if not names & {*axis.AXES, "id"}:
            raise place.error(
                "a rule that names no axis would exclude every cell or none",
                remedy=f"compare one of: {', '.join(axis.AXES)}",
            )
        _check_selector(exclude.when, matrix, place)
    for index, override in enumerate(matrix.overrides):
        place = where.key("overrides").item(index)
        _check_selector(override.select, matrix, place.key("select"))
        rules.check_requirements(override.requirements, place.key("requirements"))
        _check_override(override, matrix, place)
    if matrix.policy.require != "all":
        _check_selector(matrix.policy.require, matrix, where.key("policy").key("require"))


def _check_override(override: Override, matrix: Matrix, where: Where) -> None:
    """Find settings that contradict the axes, or that no cell would ever take up."""
    from packaging.requirements import Requirement

    for index, text in enumerate(override.requirements):
        asked = Requirement(text)
        name = canonicalize_name(asked.name)
        if name in axis.AXES and asked.specifier:
            raise (
                where.key("requirements")
                .item(index)
                .error(
                    f"{text!r} asks for another {name} than the cell may have: {name} is an axis",
                    remedy=f"write the version on the axis {name}, or exclude cells",
                )
            )
    wanted = facts.selector(override.select)
    for project in override.patches if "id" not in wanted.names else ():
        others = {"target": matrix.target, "matrix": matrix.name}
        if not any(
            axes.get(project, "none") != "none" and wanted.holds(facts.shipped().look(axes, others))
            for axes in _combinations(matrix, wanted.names | {project})
        ):
            raise (
                where.key("patches")
                .key(project)
                .error(f"no cell that this selects has a {project} to patch")
            )


def _check_selector(text: str, matrix: Matrix, where: Where) -> None:
    """Parse a selector, and see that it can match: one that cannot is a slip of the pen."""
    with where.named():
        wanted = facts.selector(text)
    others = {"target": matrix.target, "matrix": matrix.name}
    if "id" in wanted.names:  # ids are made by the expansion
        return
    for axes in _combinations(matrix, wanted.names):
        if wanted.holds(facts.shipped().look(axes, others)):
            return
    values = {name: list(texts) for name, texts in matrix.axes.items()}
    for name, text in itertools.chain.from_iterable(axes.items() for axes in matrix.include):
        values.setdefault(name, []).append(text)
    raise where.error(
        f"{text!r} matches no combination of the matrix",
        remedy=f"it has {describe(wanted.names, values)}",
    )


def _combinations(matrix: Matrix, names: frozenset[str]) -> Iterator[Mapping[str, str]]:
    """Yield the combinations of just those axes that matter to an expression over `names`."""
    matter = facts.reads(names)
    if matrix.axes:
        fitting = [
            dimension
            for dimension in matrix.dimensions
            if any(name in matter for name, _ in dimension[0])
        ]
        for combination in itertools.product(*fitting):
            yield dict(itertools.chain.from_iterable(combination))
    yield from matrix.include
