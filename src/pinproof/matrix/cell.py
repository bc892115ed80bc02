"""The cells of a matrix: their expansion, their ids, and the selection among them."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2s

from pinproof.errors import ConfigurationError
from pinproof.matrix import axis, facts, matrixcheck, rules
from pinproof.matrix.axis import Pair
from pinproof.matrix.expression import Expression, Look
from pinproof.matrix.facts import Facts
from pinproof.matrix.matrixfile import Matrix
from pinproof.matrix.rules import Exclusion, Rules
from pinproof.matrix.schema import Where

__all__ = ["Cell", "Exclusion", "expand", "matches", "select"]

#: Hexadecimal digits in an id. Six keep it readable; where two cells of a matrix would share
#: them, both get the longer form: of a million cells, 32,000 pairs share six, and none sixteen.
DIGITS = 6
LONGER = 16

#: The next step of whoever named a cell that is not there; who has only nox has no `pinproof`.
LISTED = "`nox -s expand`, or `pinproof expand`, lists the cells"

#: Verdicts of rules that are remembered per group of axes, so that memory stays flat.
REMEMBERED = 32_768


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One combination of axis values for one target.

    ``axes`` holds the axes that the matrix names, in canonical order, as they are written there.
    ``exclusion`` says why the cell is not to be tried, if it is not.
    """

    id: str
    matrix: str
    target: str
    axes: tuple[Pair, ...]
    exclusion: Exclusion | None = None

    def axis(self, name: str, default: str = "none") -> str:
        """Return the value of an axis as written, `default` where the matrix does not name it."""
        return next((text for known, text in self.axes if known == name), default)

    @property
    def label(self) -> str:
        """What a person calls the cell: ``torch 2.13.0 · triton 3.7.1``."""
        return " · ".join(
            f"{name} {_shortened(text)}" for name, text in self.axes if text != "none"
        )

    def look(self) -> Look:
        """Return how a selector sees the cell."""
        others = {"target": self.target, "matrix": self.matrix, "id": self.id}
        return facts.shipped().look(dict(self.axes), others)


def expand(
    matrix: Matrix, known: Rules | None = None, *, limit: int | None = None
) -> Iterator[Cell]:
    """Yield the cells of `matrix`, the excluded ones too, under the rules `known`.

    The rules are by default the shipped ones, the `limit` that of the matrix. Memory stays flat
    however many cells there are. Raises ConfigurationError, before the first cell, where there
    are more than `limit`.
    """
    where = Where(f'[[matrix]] "{matrix.name}"')
    matrixcheck.check_size(matrix, matrix.limit if limit is None else limit, where)
    return _expand(matrix, known or rules.shipped())


def matches(cell: Cell, text: str) -> bool:
    """Return True where the expression `text` is known to be true of `cell`."""
    return facts.selector(text).holds(cell.look())


def select(cells: Iterable[Cell], text: str = "") -> list[Cell]:
    """Return the cells for which the expression `text` is known to be true; all for "".

    Raises ConfigurationError where none is, with some of the values that there are.
    """
    known = list(cells)
    wanted = facts.selector(text) if text else None
    chosen = [cell for cell in known if wanted is None or wanted.holds(cell.look())]
    if known and wanted and not chosen:
        values: dict[str, list[str]] = {}
        for cell in known:
            own = (*cell.axes, ("target", cell.target), ("matrix", cell.matrix), ("id", cell.id))
            for name, value in own:
                values.setdefault(name, []).append(value)
        raise ConfigurationError(
            f"{text!r} matches none of {len(known)} cells",
            remedy=f"there is {matrixcheck.describe(wanted.names, values)}",
        )
    return chosen


def _expand(matrix: Matrix, known: Rules) -> Iterator[Cell]:
    name, target = matrix.name, matrix.target
    ids = _Ids(matrix)
    for axes, combinations in _products(matrix):
        exclusion = _excluder(matrix, known, axes, ids)
        for pairs in combinations:
            yield Cell(
                id=ids.of(pairs),
                matrix=name,
                target=target,
                axes=pairs,
                exclusion=exclusion(pairs),
            )


def _products(matrix: Matrix) -> Iterator[tuple[tuple[str, ...], Iterable[tuple[Pair, ...]]]]:
    """Yield axes in canonical order with their combinations: the product, then each include."""
    if matrix.axes:
        names = [name for dimension in matrix.dimensions for name, _ in dimension[0]]
        axes = tuple(sorted(names, key=axis.AXES.index))
        product = itertools.product(*matrix.dimensions)
        flat: Iterable[tuple[Pair, ...]] = map(tuple, map(itertools.chain.from_iterable, product))
        if list(axes) != names:  # a zip group lies across the canonical order
            flat = map(operator.itemgetter(*map(names.index, axes)), flat)
        yield axes, flat
    for include in matrix.include:
        axes = tuple(sorted(include, key=axis.AXES.index))
        yield axes, [tuple((name, include[name]) for name in axes)]


class _Fragments(dict[Pair, str]):
    """What each value adds to an id: nothing where it says what goes without saying."""

    def __missing__(self, pair: Pair) -> str:
        self[pair] = text = "".join(f"{name}={key}\n" for name, key in axis.meaning([pair]))
        return text


class _Ids:
    """The ids of the cells of a matrix: the same on every machine, whichever cells are chosen."""

    def __init__(self, matrix: Matrix) -> None:
        self._prefix = matrix.target.replace("_", "")
        self._hash = blake2s(f"{matrix.target}\n".encode())
        self._fragments = _Fragments()
        self._shared = self._find_shared(matrix)

    def of(self, pairs: Iterable[Pair]) -> str:
        """Return the id of a combination of the matrix."""
        digits = self._digest(pairs).hex()
        digits = digits[: LONGER if digits[:DIGITS] in self._shared else DIGITS]
        if "e" in digits[1:-1] and digits.replace("e", "", 1).isdigit():
            # Nox compares names as expressions: of "cpu-8e0591" and "cpu-2e7232", both minus
            # infinity to it, `nox -s` would run the two.
            digits = digits.replace("e", "g")
        return f"{self._prefix}-{digits}"

    def _digest(self, pairs: Iterable[Pair]) -> bytes:
        said = self._hash.copy()
        said.update("".join([self._fragments[pair] for pair in pairs]).encode())
        return said.digest()

    def _find_shared(self, matrix: Matrix) -> frozenset[str]:
        """Return the short digits that stand for more than one cell; takes 2 MiB at any size."""
        seen = bytearray(1 << 4 * DIGITS - 3)  # a bit for each that there can be
        shared = set()
        for _, combinations in _products(matrix):
            for pairs in combinations:
                digest = self._digest(pairs)
                number = int.from_bytes(digest[: DIGITS // 2])
                if seen[number >> 3] & 1 << (number & 7):
                    shared.add(digest.hex()[:DIGITS])
                seen[number >> 3] |= 1 << (number & 7)
        return frozenset(shared)


#: A reason to exclude, with its rank: of several the first one is named.
_Found = tuple[int, Exclusion] | None
_Condition = tuple[Expression, tuple[int, Exclusion]]


def _excluder(
    matrix: Matrix, known: Rules, axes: tuple[str, ...], ids: _Ids
) -> Callable[[tuple[Pair, ...]], Exclusion | None]:
    """Return the function from a combination of `axes` to the first reason to exclude it.

    Conditions are grouped by the axes that they read, and what a group says of some values is
    remembered: a million combinations have only a few hundred pairs of torch and vLLM.
    """
    groups: dict[tuple[int, ...], list[_Condition]] = {}
    for rank, (when, exclusion) in enumerate([*known.excluding, *_own(matrix)]):
        reads = facts.reads(when.names)
        # The id comes from all axes.
        places = tuple(i for i, name in enumerate(axes) if name in reads or "id" in reads)
        groups.setdefault(places, []).append((when, (rank, exclusion)))
    memory: list[tuple[Callable[..., object], dict[object, _Found], list[_Condition]]] = [
        (operator.itemgetter(*places) if places else lambda pairs: None, {}, conditions)
        for places, conditions in groups.items()
    ]

    def exclusion_of(pairs: tuple[Pair, ...]) -> Exclusion | None:
        best: _Found = None
        for key_of, remembered, conditions in memory:
            key = key_of(pairs)
            try:
                found = remembered[key]
            except KeyError:
                found = _first(conditions, matrix, known.facts, pairs, ids)
                if len(remembered) < REMEMBERED:
                    remembered[key] = found
            if found is not None and (best is None or found[0] < best[0]):
                best = found
        return best[1] if best is not None else None

    return exclusion_of


def _own(matrix: Matrix) -> Iterator[tuple[Expression, Exclusion]]:
    for exclude in matrix.exclude:
        source = f'[[matrix]] "{matrix.name}"'
        exclusion = Exclusion(rule="exclude", reason=exclude.reason, source=source)
        yield facts.selector(exclude.when), exclusion


def _first(
    conditions: Iterable[_Condition],
    matrix: Matrix,
    known: Facts,
    pairs: tuple[Pair, ...],
    ids: _Ids,
) -> _Found:
    others = {"target": matrix.target, "matrix": matrix.name, "id": ids.of(pairs)}
    look = known.look(dict(pairs), others)
    return next((found for when, found in conditions if when.holds(look)), None)


def _shortened(text: str) -> str:
    """Cut a commit to what people read of it."""
    return re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", text)
