"""Why a combination cannot work, and what its packages forgot to require: rules, as data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pinproof.matrix import axis, expression, facts, schema
from pinproof.matrix.expression import Expression, Look
from pinproof.matrix.facts import Facts
from pinproof.matrix.schema import TEXT, Form, Where, option

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell

SHIPPED = Path(__file__).parents[1] / "data" / "rules.toml"

_ID = Form(r"[a-z0-9][a-z0-9.-]*", "lower-case letters, digits, dots and dashes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """Why a cell is not tried: the rule that says so, its reason, and where that was read."""

    rule: str
    reason: str
    source: str = ""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rule:
    """Excludes the combinations for which `when` is known to be true."""

    id: str = option(about="a short name, shown in tables", form=_ID)
    when: str = option(about="the condition")
    reason: str = option(about="what goes wrong, in one line", form=TEXT)
    source: str = option(about="where that was read or seen", form=TEXT)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Require:
    """Adds requirements to the combinations for which `when` is known to be true."""

    id: str = option(about="a short name, shown in tables", form=_ID)
    when: str = option(about="the condition")
    requirements: tuple[str, ...] = option(about="what pip would be given", filled=True)
    reason: str = option(about="what goes wrong without them", form=TEXT)
    source: str = option(about="where that was read or seen", form=TEXT)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RulesFile:
    """A file of rules, as it is written."""

    rule: tuple[Rule, ...] = option(about="reasons to exclude", default=())
    require: tuple[Require, ...] = option(about="requirements to add", default=())


@dataclass(frozen=True, kw_only=True, eq=False)
class Rules:
    """Parsed rules in the order of their file; where several apply the first one is named."""

    facts: Facts
    excluding: tuple[tuple[Expression, Exclusion], ...]
    requiring: tuple[tuple[Expression, tuple[str, ...]], ...]

    @functools.cached_property
    def of_machine(self) -> Rules:
        """The rules that need to know the machine: those that expansion could not apply."""
        own = tuple(pair for pair in self.excluding if pair[0].names & {*facts.MACHINE})
        return replace(self, excluding=own)

    def check(self, cell: Cell, machine: Mapping[str, str] | None = None) -> Exclusion | None:
        """Return why `cell` cannot work, or None.

        `machine` gives ``driver``, ``gcc`` and ``glibc`` as far as they are known; rules that
        need one which is missing stay silent, as they all do when a matrix is expanded.
        """
        look = self._look(cell, machine or {})
        return next((found for when, found in self.excluding if when.holds(look)), None)

    def requirements(self, cell: Cell) -> tuple[str, ...]:
        """Return the requirements that `cell` needs beside those that its axes name."""
        look = self._look(cell, {})
        return tuple(
            requirement
            for when, requirements in self.requiring
            if when.holds(look)
            for requirement in requirements
        )

    def _look(self, cell: Cell, machine: Mapping[str, str]) -> Look:
        known = {name: machine[name] for name in facts.MACHINE if machine.get(name)}
        return self.facts.look(dict(cell.axes), {"target": cell.target, **known})


def load(path: Path, known: Facts | None = None) -> Rules:
    """Read a file of rules over the facts `known` (the shipped ones).

    Raises ConfigurationError for a rule that does not parse, names neither an axis nor the
    machine (it would remove a whole target or nothing), or has the id of another.
    """
    where = Where(path.name)
    file = schema.convert(RulesFile, schema.read_toml(path), where)
    seen: set[str] = set()
    excluding = []
    requiring = []
    tables: tuple[Rule | Require, ...] = (*file.rule, *file.require)
    for rule in tables:
        kind = "rule" if isinstance(rule, Rule) else "require"
        place = where.key(kind).item(0, {"id": rule.id})
        if rule.id in seen:
            raise place.error("another rule has the same id")
        seen.add(rule.id)
        when = _condition(rule, place)
        if isinstance(rule, Rule):
            found = Exclusion(rule=rule.id, reason=rule.reason, source=rule.source)
            excluding.append((when, found))
        else:
            check_requirements(rule.requirements, place.key("requirements"))
            requiring.append((when, rule.requirements))
    return Rules(
        facts=known or facts.shipped(), excluding=tuple(excluding), requiring=tuple(requiring)
    )


def _condition(rule: Rule | Require, place: Where) -> Expression:
    place = place.key("when")
    with place.named():
        when = expression.parse(rule.when, facts.words("target", *facts.MACHINE))
    if not when.names & {*axis.AXES, *facts.MACHINE}:
        raise place.error(
            "a rule that names no axis would take a whole target or nothing",
            remedy=f"compare one of: {', '.join(axis.AXES)}",
        )
    return when


def check_requirements(requirements: tuple[str, ...], where: Where) -> None:
    """Raise ConfigurationError, with the place, for a requirement that no lock can hold."""
    from packaging.requirements import InvalidRequirement, Requirement

    for index, text in enumerate(requirements):
        try:
            parsed = Requirement(text)
        except (InvalidRequirement, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise where.item(index).error(f"{text!r} is not a requirement: {reason}") from None
        if parsed.url:
            # Not shown: it may hold a password.
            raise where.item(index).error(
                f"{parsed.name} is given by an address, and a lock holds none",
                remedy="give a version, and add the place of its wheel to pip's find-links",
            )


@functools.cache
def shipped() -> Rules:
    """Return the rules that come with Pinproof."""
    return load(SHIPPED)
