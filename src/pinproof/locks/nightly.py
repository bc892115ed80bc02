"""Which wheel a nightly stands for: the one of its day, for one build, Python and platform. Pure.

An index of nightlies has gaps: a build may fail for days, or for one Python alone. A day without
a wheel that fits is passed over, and told; a day that was asked for by its date must be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from pinproof.errors import ResolveError
from pinproof.locks.listing import File
from pinproof.locks.wheeltags import best_wheel
from pinproof.matrix.axis import Value

_DAY = re.compile(r"(?:dev|post)(\d{8})")

#: How many days that were passed over a note names one by one.
NAMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """For whom a wheel is chosen: ``build`` "cu130", ``python`` "3.12", ``platform`` of uv."""

    build: str
    python: str
    platform: str | None

    def __str__(self) -> str:
        return f"{self.build}, Python {self.python} on {self.platform or 'this machine'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The wheel that a nightly stands for, its version, and what was passed over on the way."""

    file: File
    version: str
    notes: tuple[str, ...] = ()


def version_of(name: str, project: str) -> Version | None:
    """Return the version in the name of a wheel of `project`; None for any other file."""
    try:
        found, version, _, _ = parse_wheel_filename(name)
    except (InvalidWheelFilename, ValueError):
        return None
    return version if found == canonicalize_name(project) else None


def fitting(
    files: Iterable[File], project: str, wanted: Wanted, *, any_build: bool = False
) -> dict[Version, list[File]]:
    """Return by version the wheels of `project` in the wanted build, for any Python."""
    found: dict[Version, list[File]] = {}
    for file in files:
        version = version_of(file.name, project)
        if version is not None and (any_build or version.local == wanted.build):
            found.setdefault(version, []).append(file)
    return found


def usable(files: Iterable[File], wanted: Wanted) -> File | str:
    """Return the one of `files` that the wanted Python and platform take, or why there is none."""
    known = {file.name: file for file in files}
    try:
        file = known[best_wheel(known, wanted.python, wanted.platform)]
    except ResolveError:
        return f"no wheel for Python {wanted.python} on {wanted.platform or 'this machine'}"
    if file.yanked:
        return "withdrawn (yanked)" + ("" if file.yanked == "yes" else f": {file.yanked[:80]}")
    if not file.sha256:
        return "the index gives no sha256 of it"
    return file


def choose(
    value: Value, files: Iterable[File], wanted: Wanted, problem: Callable[[File], str]
) -> Choice:
    """Return the wheel that the nightly `value` stands for.

    `problem` says why a wheel is of no use after all (a companion is missing), "" where it is.
    Raises ResolveError where the listing holds no such day.
    """
    days = _days(fitting(files, value.axis, wanted))
    if value.day:
        return _of_day(value, days, wanted, problem)
    passed: dict[date, str] = {}
    left = value.back
    for day in sorted(days, reverse=True):
        found = _on(days[day], wanted, problem)
        if isinstance(found, str):
            passed[day] = found
        elif left == 0:
            return Choice(
                file=found,
                version=str(version_of(found.name, value.axis)),
                notes=_notes(value.axis, max(days), day, days, passed),
            )
        else:
            left -= 1
    usable_days = value.back - left
    raise ResolveError(
        f"{value.axis} {value.text}: the index holds {usable_days} nightlies for {wanted}",
        conflict=True,
        cause=_reasons(passed) or "it lists no nightly of that build at all",
        remedy="name a newer nightly, another build on the cuda axis, or another Python",
    )


def _of_day(
    value: Value,
    days: Mapping[date, list[list[File]]],
    wanted: Wanted,
    problem: Callable[[File], str],
) -> Choice:
    day = date.fromisoformat(value.day)
    if day in days:
        found = _on(days[day], wanted, problem)
        if not isinstance(found, str):
            return Choice(file=found, version=str(version_of(found.name, value.axis)))
        why = found
    else:
        why = "nothing was published on that day, or it has left the index"
    near = sorted(days, key=lambda other: abs(other - day))
    ready = [each for each in near if not isinstance(_on(days[each], wanted, lambda _: ""), str)]
    nearest = " or ".join(f"{value.axis} nightly@{each}" for each in sorted(ready[:2]))
    raise ResolveError(
        f"{value.axis} {value.text}: there is no nightly of that day for {wanted}",
        conflict=True,
        cause=why,
        remedy=f"name {nearest}" if nearest else "name another build on the cuda axis",
    )


def _days(versions: Mapping[Version, list[File]]) -> dict[date, list[list[File]]]:
    """Return by day the wheels of each version of that day, the highest version first."""
    days: dict[date, list[list[File]]] = {}
    for version in sorted(versions, reverse=True):
        if match := _DAY.search(version.public):
            try:
                day = date.fromisoformat(match[1])
            except ValueError:
                continue
            days.setdefault(day, []).append(versions[version])
    return days


def _on(
    versions: Iterable[list[File]], wanted: Wanted, problem: Callable[[File], str]
) -> File | str:
    """Return the wheel of a day, or why it has none."""
    why = ""
    for files in versions:
        found = usable(files, wanted)
        if isinstance(found, str) or (told := problem(found)):
            why = why or (found if isinstance(found, str) else told)
        else:
            return found
    return why


def _notes(
    axis: str, newest: date, chosen: date, days: Iterable[date], passed: Mapping[date, str]
) -> tuple[str, ...]:
    known = set(days)
    between = (chosen + timedelta(days=n) for n in range(1, (newest - chosen).days))
    missing = {day: "nothing was published" for day in between if day not in known}
    told = _reasons({**missing, **passed})
    return (f"{axis}: days passed over: {told}",) if told else ()


def _reasons(passed: Mapping[date, str]) -> str:
    days = sorted(passed, reverse=True)
    told = [f"{day} ({passed[day]})" for day in days[:NAMED]]
    more = [f"{len(days) - NAMED} more"] if len(days) > NAMED else []
    return ", ".join([*told, *more])
