"""Makes the committed lock of a matrix anew, whole or in part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pinproof.builds import lookups
from pinproof.clock import now
from pinproof.errors import ConfigurationError, NothingRanError, PinproofError, ResolveError
from pinproof.locks import batch, lockfile
from pinproof.locks import installer as installers
from pinproof.locks.batch import Answer
from pinproof.locks.fixed import Fixed, Key
from pinproof.locks.installer import Installer
from pinproof.locks.lock import PACKAGES, Lock, Request, build_of_torch
from pinproof.locks.lockfile import Entry, Lockfile, Place, Target, key_without_platform
from pinproof.locks.moving import Lookup
from pinproof.locks.nightly import Wanted
from pinproof.locks.wheeltags import platform_tags
from pinproof.matrix import axis as axes
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile
from pinproof.matrix.axis import Kind
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Matrix
from pinproof.plan import recipe

#: What `renew` tells while it works: what was done, how many are done, how many there are.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for. ``targets`` () stands for those of the old lock, else this machine.

    ``axis`` and ``cells`` say what is renewed; without them it is everything.
    """

    matrix_file: Path
    matrix: str
    targets: tuple[Target, ...] = ()
    axis: str = ""
    cells: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """True where everything is renewed."""
        return not self.axis and not self.cells

    def names(self, cell: Cell, name: str) -> bool:
        """Say if the value of `cell` on the axis `name` is to be looked up anew."""
        return self.is_whole or self.axis == name or cell.id in self.cells


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one cell asks for on one Python and platform, its moving values fixed."""

    cell: Cell
    python: str
    platform: str
    values: tuple[Fixed, ...]
    request: Request

    @property
    def key(self) -> str:
        """What the request is known by."""
        return key_without_platform(self.request)

    @property
    def question(self) -> str:
        """What the solver is asked: equal for cells that share an answer."""
        return self.request.digest

    @property
    def place(self) -> Place:
        """What it is for."""
        return self.cell.id, self.python, self.platform


class Survey:
    """What the cells of a matrix ask for now: `wishes`, and in ``notes`` what cannot be locked."""

    def __init__(self, order: Order, old: Lockfile | None, here: Target) -> None:
        file = matrixfile.load(order.matrix_file)
        self.order = order
        self.old = old or Lockfile(matrix=order.matrix)
        self.matrix: Matrix = file.named(order.matrix)
        self.tool: Installer = installers.installer(named=file.indexes)
        self.targets = order.targets or self.old.targets or (here,)
        self.notes: list[str] = []
        self._lookup = Lookup(self.tool.places, cert=self.tool.env.get("SSL_CERT_FILE", ""))
        self._known: dict[Key, Fixed] = {}
        for target in self.targets:
            platform_tags(target[1])
        tried = [each for each in cells.expand(self.matrix) if each.exclusion is None]
        unknown = set(order.cells) - {each.id for each in tried}
        if unknown:
            raise ConfigurationError(
                f"there is no cell {sorted(unknown)[0][:60]!r} in {order.matrix}",
                remedy=cells.LISTED,
            )
        self.cells = tuple(cells.select(tried))

    def wishes(self, *, anew: bool = True) -> tuple[Wish, ...]:
        """Return what the cells ask for; where not `anew`, with the values of the old lock.

        Raises PinproofError where a moving value cannot be looked up.
        """
        self._known.clear()
        found = {wish.place: wish for target in self.targets for wish in self._of(target, anew)}
        if not found:
            raise NothingRanError(
                f"no cell of {self.order.matrix} can be locked",
                cause=self.notes[0] if self.notes else "",
            )
        return tuple(found.values())

    def solve(self, wishes: Iterable[Wish], tell: Tell) -> dict[str, Answer]:
        """Return the answer to each question of `wishes`; see `batch.solve`."""
        cells = {wish.question: wish.cell for wish in wishes}
        requests = {wish.question: wish.request for wish in wishes}

        def told(question: str, done: int, total: int) -> None:
            tell(f"{cells[question].id} {cells[question].label}", done, total)

        try:
            return batch.solve(self.tool, requests, told)
        except batch.Unanswered as error:
            cell = cells[error.question]
            raise ResolveError(
                f"{cell.id} ({cell.label}): {error.why.what}",
                conflict=False,
                cause=error.why.cause,
                remedy=error.why.remedy,
            ) from None

    def _of(self, target: Target, anew: bool) -> Iterator[Wish]:
        renewed = {
            self._key(cell, name, target)
            for cell in self.cells
            for name in _moving(cell)
            if anew and self.order.names(cell, name)
        }
        for cell in self.cells:
            python, platform = _python(cell, target), target[1]
            backend = matrixfile.settings(self.matrix, cell).backend
            if backend == "system":
                self._note(f"{cell.id} stands on what a machine has installed: not locked")
                continue
            values = tuple(self._value(cell, name, target, renewed) for name in _moving(cell))
            try:
                work = recipe.of(
                    cell,
                    self.matrix,
                    python=python,
                    fixed=values,
                    looked=lookups.look(cell, self.matrix, values),
                )
            except PinproofError as error:
                if isinstance(error, ResolveError) and not error.conflict:
                    raise  # a repository that cannot be reached says nothing of the cell
                self._note(f"{cell.id} is not locked: {error.what}")
                continue
            request = replace(work.request, platform=platform)
            yield Wish(cell=cell, python=python, platform=platform, values=values, request=request)

    def _value(self, cell: Cell, name: str, target: Target, renewed: set[Key]) -> Fixed:
        key = self._key(cell, name, target)
        if key not in self._known:
            known = self.old.fixed(cell, key[3], key[4])
            # Of another platform is no answer here; what names none is the same for all.
            old = {each.axis: each for each in known if each.platform in ("", key[4])}
            if key in renewed or name not in old:
                wanted = Wanted(build=key[2], python=key[3], platform=key[4])
                self._known[key] = self._look_up(cell, name, wanted)
            else:
                self._known[key] = old[name]
        return self._known[key]

    def _look_up(self, cell: Cell, name: str, wanted: Wanted) -> Fixed:
        value = axes.parse(name, cell.axis(name))
        if value.kind is Kind.NIGHTLY and wanted.build == "cuda":
            raise ConfigurationError(
                f"{cell.id}: nothing says which build of the nightly is meant",
                remedy='name it on the cuda axis, such as "13.0"',
            )
        found = self._lookup.fix(value, wanted)
        for note in found.notes:
            self._note(note)
        return found

    def _key(self, cell: Cell, name: str, target: Target) -> Key:
        build = build_of_torch(cell) or ""
        return name, cell.axis(name), build, _python(cell, target), target[1]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def renew(survey: Survey, tell: Tell = lambda text, done, total: None) -> Lockfile:
    """Return the lock that `survey` asks for.

    What the order does not name keeps its pins, unless it asks for something else now. Cells
    whose requirements conflict are recorded as that. Raises PinproofError where anything else
    fails: a lock is made whole or not at all.
    """
    order, old = survey.order, survey.old
    wishes = survey.wishes()
    known = {each.place: each for each in old.entries}
    asked = [
        wish
        for wish in wishes
        if order.is_whole
        or wish.cell.id in order.cells
        or wish.place not in known
        or known[wish.place].request != wish.key
    ]
    answers = survey.solve(asked, tell)
    found: list[tuple[Entry, Lock | None]] = []
    for wish in wishes:
        if wish.question in answers:
            found.append(_answered(wish, answers[wish.question]))
        else:
            found.append((known[wish.place], old.locks.get(known[wish.place].file)))
    values = {each.key: each for wish in wishes for each in wish.values}
    for wish, (_, lock) in zip(wishes, found, strict=True):
        values |= {each.key: each for each in _ranges(wish, lock, old)}
    found += [(each, old.locks.get(each.file)) for each in _elsewhere(survey)]
    kept = {each.key: each for each in old.values if _stays(survey, each)}
    targets = dict.fromkeys((*old.targets, *survey.targets))
    made = Lockfile(matrix=order.matrix, made=now("seconds"), targets=tuple(targets))
    return lockfile.put_together(made, {**kept, **values}.values(), found)


def blamed(cell: Cell, error: ResolveError) -> str:
    """Say which axes of `cell` a conflict is between, and how the solver explains it."""
    told = error.cause or error.what
    named = [
        f"{name} {cell.axis(name)}"
        for name in PACKAGES
        if cell.axis(name) not in ("none", "bundled")
        and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told)
    ]
    if not named:
        return told
    how = "do not go together" if len(named) > 1 else "cannot be had"
    return f"{' and '.join(named)} {how}: {told}"


def _answered(wish: Wish, answer: Answer) -> tuple[Entry, Lock | None]:
    entry = Entry(cell=wish.cell.id, python=wish.python, platform=wish.platform, request=wish.key)
    if isinstance(answer, ResolveError):
        return replace(entry, conflict=blamed(wish.cell, answer)), None
    # An address is a thing of the machine that installs: it finds the build's index by itself.
    return entry, replace(answer.lock, torch_backend="", sources=answer.sources)


def _ranges(wish: Wish, lock: Lock | None, old: Lockfile) -> Iterator[Fixed]:
    """Yield which release each specifier of the cell came to."""
    for name, text in wish.cell.axes:
        pin = next((each for each in lock.pins if each.name == name), None) if lock else None
        if pin is None or axes.parse(name, text).kind is not Kind.SPECIFIER:
            continue
        found = Fixed(
            axis=name,
            asked=text,
            build=build_of_torch(wish.cell) or "",
            python=wish.python,
            platform=wish.platform,
            version=pin.version,
            sha256=pin.sha256,
            when=now("seconds"),
        )
        before = next((each for each in old.values if each.key == found.key), None)
        yield before if before and before.sha256 == found.sha256 else found


def _elsewhere(survey: Survey) -> Iterator[Entry]:
    """Yield what the old lock has of cells that are still there, for targets not asked for."""
    known = {cell.id: cell for cell in survey.cells}
    for entry in survey.old.entries:
        cell = known.get(entry.cell)
        # What a target of this run would have made, and did not, can be locked no more.
        if cell is not None and (entry.python, entry.platform) not in _places(survey, [cell]):
            yield entry


def _stays(survey: Survey, value: Fixed) -> bool:
    """Say if cells still ask for a value, and on no target of this run."""
    asking = [
        cell
        for cell in survey.cells
        if cell.axis(value.axis) == value.asked and (build_of_torch(cell) or "") == value.build
    ]
    places = _places(survey, asking)
    return bool(value.python and asking) and (value.python, value.platform) not in places


def _places(survey: Survey, of: Iterable[Cell]) -> set[Target]:
    """Return the Pythons and platforms that the cells have on the targets of this run."""
    return {(_python(cell, target), target[1]) for cell in of for target in survey.targets}


def _moving(cell: Cell) -> list[str]:
    """Return the axes whose value a listing or a repository tells."""
    kinds = {name: axes.parse(name, text).kind for name, text in cell.axes}
    return [name for name, kind in kinds.items() if kind in (Kind.NIGHTLY, Kind.GIT)]


def _python(cell: Cell, target: Target) -> str:
    return ".".join(cell.axis("python", target[0]).split(".")[:2])
