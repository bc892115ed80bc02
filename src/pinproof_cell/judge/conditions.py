"""Conditions: what a call must be for a known defect to show, as `defects.toml` writes them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pinproof_cell.judge.ranges import Range
from pinproof_cell.suite.cases import FEATURES, Case


def _beyond_clamp(case: Case) -> int:
    """Return how many keys a query loses at most where a right end stops at the number of keys.

    FlashAttention 2 (`mha_fwd` and `set_params_fprop`) takes a limit of the longest sequence's keys
    or more for none, and of a window with a left limit alone ends the right there.
    """
    longest = max(keys for _, keys in case.sequences)
    left, right = case.window
    if not 0 <= left < longest or 0 <= right <= longest:
        return 0
    return max(min(keys, queries - longest - 1) for queries, keys in case.sequences)


#: What a condition can ask of a case beside its features: its fields, and what follows from them:
#: ``batch`` counts the sequences of a ragged case too, ``surplus`` the queries beyond the keys, and
#: ``keyless`` the queries of sequences without any key.
_DERIVED: dict[str, Callable[[Case], Any]] = {
    **{field.name: operator.attrgetter(field.name) for field in fields(Case)},
    "dim_v": operator.attrgetter("dim_v"),
    "group": lambda case: case.heads // case.heads_k,
    "batch": lambda case: len(case.sequences),
    "surplus": lambda case: max(queries - keys for queries, keys in case.sequences),
    "keyless": lambda case: sum(queries for queries, keys in case.sequences if not keys),
    "beyond_clamp": _beyond_clamp,
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check came to, as far as a defect asks.

    ``findings`` are as `judge.findings` documents them; ``signal`` is what ended the process;
    ``identity`` is the name of the identity that it is of; ``features`` are more than the case's
    own, as that may ask for.
    """

    case: Case
    status: str
    findings: Sequence[Mapping[str, Any]]
    signal: str | None = None
    features: frozenset[str] = frozenset()
    kind: str = "case"
    identity: str | None = None

    @classmethod
    def read(cls, check: Mapping[str, Any]) -> Outcome:
        """Return that of a finished check in a document of the suite."""
        fields = {name: frozen(value) for name, value in check["case"].items()}
        return cls(
            case=Case(**fields),
            status=check["status"],
            findings=check["findings"],
            signal=check["signal"],
            features=frozenset(check["features"]),
            kind=check["kind"],
            identity=check["id"].partition("@")[0] if check["kind"] == "identity" else None,
        )


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a call must be: ``features`` it has, ``without`` those, ``where`` its fields lie.

    ``identity`` names the identities that make such a call beside the one of their case; where
    there are none, any check is meant.
    """

    features: frozenset[str]
    without: frozenset[str]
    identity: frozenset[str]
    where: Mapping[str, Range | tuple[Any, ...]]

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Condition:
        """Read a table of the file. Raises ValueError for a feature or field that is none."""
        rest = dict(table)
        features, without, identity = (
            frozenset(rest.pop(key, ())) for key in ("features", "without", "identity")
        )
        if strange := sorted((features | without) - FEATURES):
            raise ValueError(f"no features {strange}")
        where = dict(_where(rest))
        return cls(features=features, without=without, identity=identity, where=where)

    def holds(self, outcome: Outcome) -> bool:
        """Say if the call of `outcome` is so."""
        case, found = outcome.case, outcome.case.features | outcome.features
        if not self.features <= found or self.without & found:
            return False
        if self.identity and outcome.identity not in self.identity:
            return False
        values = {name: _DERIVED[name](case) for name in self.where}
        return all(
            known.holds(values[name]) if isinstance(known, Range) else values[name] in known
            for name, known in self.where.items()
        )


def _where(fields: Mapping[str, Any]) -> Iterator[tuple[str, Range | tuple[Any, ...]]]:
    for name, value in fields.items():
        if name not in _DERIVED:
            raise ValueError(f"a case has no field {name!r}")
        if isinstance(value, str):
            yield name, Range.parse(value)
        else:
            yield name, tuple(map(frozen, value if isinstance(value, list) else [value]))


def frozen(value: Any) -> Any:
    """Return a value of a document with tuples for its lists, as a case holds them."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value
