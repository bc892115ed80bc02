"""What moved since a lock was made: between two locks, and between a lock and the world."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pinproof.errors import ResolveError
from pinproof.locks.batch import SOLVERS
from pinproof.locks.fixed import Fixed
from pinproof.locks.lock import Lock, Pin
from pinproof.locks.lockfile import Lockfile
from pinproof.locks.renew import Survey, Tell, Wish
from pinproof.locks.resolve import resolve
from pinproof.matrix import axis as axes
from pinproof.matrix.axis import Kind


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Change:
    """One thing that is not as it was: what, how it was locked, how it is now."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what}: {self.old or 'nothing'} -> {self.new or 'nothing'}"


def between(old: Lockfile | None, new: Lockfile) -> tuple[Change, ...]:
    """Return what is other in the lock `new`: moving values first, then packages."""
    if old is None:
        return ()
    before = {entry.place: old.locks.get(entry.file) for entry in old.entries}
    moved: dict[Change, list[str]] = {}
    for entry in new.entries:
        was, now = before.get(entry.place), new.locks.get(entry.file)
        if was is not None and now is not None:
            for change in _pins(was, now):
                moved.setdefault(change, []).append(entry.cell)
    packages = [
        replace(change, what=f"{change.what} of {len(in_cells)} cell{'s' * (len(in_cells) > 1)}")
        for change, in_cells in sorted(moved.items())
    ]
    return (*_values(old.values, new.values), *packages)


def check(survey: Survey, tell: Tell = lambda text, done, total: None) -> tuple[Change, ...]:
    """Return in what the old lock of `survey` is stale; () where it still holds.

    Stale is a lock of which a cell asks for something else now, a moving value stands for
    something else, or a file is no longer to be had. That newer releases are there does not make
    it stale: keeping them out is what a lock is for. Raises PinproofError where it cannot be said.
    """
    old = survey.old
    wishes = survey.wishes(anew=False)
    stale = [*_asked(survey, wishes)]
    try:
        now = {each.key: each for wish in survey.wishes() for each in wish.values}
        stale += _values(old.values, now.values())
    except ResolveError as error:
        if not error.conflict:
            raise
        stale.append(Change(what=error.what, old="locked", new=error.cause or "nothing"))
    known = {each.place: each for each in old.entries}
    same = [w for w in wishes if w.place in known and known[w.place].request == w.key]
    # Cells that share a file of pins share the answer; the one that also builds asks for more.
    same.sort(key=lambda w: len(w.request.sources))
    held = {known[w.place].file: w for w in same if known[w.place].file}
    with ThreadPoolExecutor(SOLVERS) as pool:
        for done, changes in enumerate(pool.map(lambda w: _held(survey, w), held.values()), 1):
            tell("looked for the locked files", done, len(held))
            stale += changes
    again = [w for w in same if known[w.place].conflict or _has_range(w)]
    for question, answer in survey.solve(again, tell).items():
        wish = next(w for w in again if w.question == question)
        was = old.locks.get(known[wish.place].file)
        stale += _answers(wish, was, answer if isinstance(answer, ResolveError) else answer.lock)
    return tuple(dict.fromkeys(stale))


def _asked(survey: Survey, wishes: Iterable[Wish]) -> Iterator[Change]:
    known = {each.place: each for each in survey.old.entries}
    wishes = list(wishes)
    for wish in wishes:
        entry = known.get(wish.place)
        what = f"{wish.cell.id} ({wish.cell.label}), Python {wish.python}"
        if entry is None:
            yield Change(what=what, old="not locked", new="asked for by the matrix")
        elif entry.request != wish.key:
            yield Change(what=what, old="locked", new="the matrix asks for something else")
    cells = {wish.cell.id for wish in wishes}
    for gone in dict.fromkeys(each.cell for each in survey.old.entries if each.cell not in cells):
        yield Change(what=gone, old="locked", new="no cell of the matrix that can be locked")


def _held(survey: Survey, wish: Wish) -> list[Change]:
    """Return what of the locked files of a cell is not to be had now."""
    lock = survey.old.recall(wish.cell.id, wish.request, wish.platform)
    assert lock is not None  # noqa: S101 - the caller has looked
    try:
        found = resolve(wish.request, survey.tool, held=lock)
    except ResolveError as error:
        if not error.conflict:
            raise
        return [Change(what=wish.cell.id, old="locked", new=error.what)]
    withdrawn = [
        Change(what=note.partition(" ")[0], old="locked", new="withdrawn (yanked)")
        for note in found.notes
        if note.endswith("(yanked)")
    ]
    return [*_pins(lock, found.lock), *withdrawn]


def _answers(wish: Wish, was: Lock | None, now: Lock | ResolveError) -> Iterator[Change]:
    if isinstance(now, ResolveError):
        if was is not None:
            yield Change(what=wish.cell.id, old="locked", new=now.what)
    elif was is None:
        yield Change(what=wish.cell.id, old="versions did not fit", new="they fit now")
    else:
        for name, text in wish.cell.axes:
            old, new = was.version(name) or "", now.version(name) or ""
            if axes.parse(name, text).kind is Kind.SPECIFIER and old != new:
                yield Change(what=f"{name} {text}", old=old, new=new)


def _has_range(wish: Wish) -> bool:
    return any(axes.parse(name, text).kind is Kind.SPECIFIER for name, text in wish.cell.axes)


def _values(old: Iterable[Fixed], new: Iterable[Fixed]) -> list[Change]:
    before = {each.key: each for each in old}
    return [
        Change(what=_name(each), old=_shown(before[each.key]), new=_shown(each))
        for each in new
        if each.key in before and _shown(before[each.key]) != _shown(each)
    ]


def _name(value: Fixed) -> str:
    where = ", ".join(text for text in (value.build, value.python) if text)
    return f"{value.axis} {value.asked}" + (f" ({where})" if where else "")


def _shown(value: Fixed) -> str:
    """Return what a value stands for; the bytes count too, and are told where they are known."""
    return f"{value.text} sha256:{value.sha256[:12]}" if value.sha256 else value.text


def _pins(old: Lock, new: Lock) -> Iterator[Change]:
    """Yield which packages are others."""
    before: Mapping[str, Pin] = {pin.name: pin for pin in old.pins}
    after: Mapping[str, Pin] = {pin.name: pin for pin in new.pins}
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is None or now is None or was.version != now.version:
            yield Change(what=name, old=was.version if was else "", new=now.version if now else "")
        elif was.sha256 != now.sha256:
            yield Change(
                what=f"{name} {now.version}",
                old=f"{was.file} sha256:{was.sha256[:12]}",
                new=f"{now.file} sha256:{now.sha256[:12]}",
            )
