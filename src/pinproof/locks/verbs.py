"""The verb `lock`: makes the committed locks of matrices anew, or says in what they are stale."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pinproof.errors import ConfigurationError, ExitCode, PinproofError, did_you_mean
from pinproof.locks import collect, lockfile, moved, renew
from pinproof.locks.lockfile import Lockfile, Target
from pinproof.locks.renew import Survey, Tell
from pinproof.matrix import axis as axes
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile
from pinproof.matrix.matrixfile import MatrixFile
from pinproof.matrix.schema import Where

#: How many changes are printed; the JSON has all.
SHOWN = 40

#: Seconds between two lines of progress where the screen cannot be moved.
EVERY = 2.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asked for; "" and () stand for "not given"."""

    matrix_file: Path
    matrix: str = ""
    axis: str = ""
    cells: tuple[str, ...] = ()
    python: str = ""
    platform: str = ""
    check: bool = False

    def __post_init__(self) -> None:
        if self.axis and self.axis not in axes.AXES:
            raise ConfigurationError(
                f"there is no axis {self.axis[:60]!r}.{did_you_mean(self.axis[:60], axes.AXES)}",
                remedy=f"use one of: {', '.join(axes.AXES)}",
            )
        if self.python:
            with Where("--python").named():
                axes.parse("python", self.python)


def lock(order: Order, out: TextIO) -> dict[str, Any]:
    """Do what `order` asks for, tell `out`, and return what came of it as a document.

    One matrix that cannot be locked keeps no other from it; the worst exit code counts.
    """
    file = matrixfile.load(order.matrix_file)
    names = list(_matrices(order, file))
    if not names:
        raise ConfigurationError(
            f"no matrix of {order.matrix_file.name} has a lock",
            remedy="make one: nox -s lock -- --matrix NAME",
        )
    documents = []
    for name in names:
        try:
            documents.append(_one(order, name, out))
        except PinproofError as error:
            if len(names) == 1:
                raise
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            documents.append(
                {"matrix": name, "error": str(error), "exit_code": int(error.exit_code)}
            )
    code = max((each["exit_code"] for each in documents), key=_rank)
    return {"schema": 1, "matrices": documents, "exit_code": code}


def _rank(code: int) -> int:
    """Order exit codes: that something could not be looked at is worse than that it is stale."""
    return [ExitCode.OK, ExitCode.STALE, *(c for c in ExitCode if c not in (0, 5))].index(
        ExitCode(code)
    )


def _matrices(order: Order, file: MatrixFile) -> Iterator[str]:
    """Yield the matrices that are meant: the named, those of the named cells, the locked ones."""
    if order.matrix:
        yield file.named(order.matrix).name
        return
    for matrix in file.matrices:
        if order.cells:
            if set(order.cells) & {cell.id for cell in cells.expand(matrix)}:
                yield matrix.name
                return
        elif lockfile.path_of(order.matrix_file, matrix.name).exists():
            yield matrix.name
    if order.cells:
        raise ConfigurationError(
            f"there is no cell {order.cells[0][:60]!r} in {order.matrix_file.name}",
            remedy=cells.LISTED,
        )


def _one(order: Order, name: str, out: TextIO) -> dict[str, Any]:
    path = lockfile.path_of(order.matrix_file, name)
    old = lockfile.load(path)
    if order.check and old is None:
        raise ConfigurationError(
            f"{name} has no lock", remedy=f"make one: nox -s lock -- --matrix {name}"
        )
    began = time.monotonic()
    wanted = renew.Order(
        matrix_file=order.matrix_file,
        matrix=name,
        targets=_targets(order, old),
        axis=order.axis,
        cells=order.cells,
    )
    survey = Survey(wanted, old, ("{}.{}".format(*sys.version_info[:2]), _here(order, old)))
    tell = _teller(out, name)
    if order.check:
        changes = moved.check(survey, tell)
        new = survey.old
    else:
        new = renew.renew(survey, tell)
        changes = moved.between(old, new)
        lockfile.save(new, path)
    conflicts = {each.cell: each.conflict for each in new.entries if each.conflict}
    document = {
        "matrix": name,
        "file": str(path),
        "written": not order.check,
        "locked": sum(bool(each.file) for each in new.entries),
        "conflicts": conflicts,
        "values": [asdict(each) for each in new.values],
        "changes": [asdict(each) for each in changes],
        "notes": survey.notes,
        "seconds": round(time.monotonic() - began, 1),
        "exit_code": int(ExitCode.STALE if order.check and changes else ExitCode.OK),
    }
    _say(document, new, changes, order.check, out)
    return document


def _here(order: Order, old: Lockfile | None) -> str:
    """Return the name of this machine's platform, where nothing else says one."""
    return order.platform or ("" if old and old.targets else collect.this_platform())


def _targets(order: Order, old: Lockfile | None) -> tuple[Target, ...]:
    """Return the one target that was named; () leaves it to the lock."""
    if not order.python and not order.platform:
        return ()
    known = old.targets[0] if old and old.targets else ("", "")
    here = "{}.{}".format(*sys.version_info[:2])
    python = ".".join(order.python.split(".")[:2]) or known[0] or here
    return ((python, order.platform or known[1] or collect.this_platform()),)


def _teller(out: TextIO, name: str) -> Tell:
    told = 0.0

    def tell(text: str, done: int, total: int) -> None:
        nonlocal told
        if out.isatty():
            end = "\n" if done == total else ""
            print(f"\r\033[2K{name}: {done}/{total} {text[:60]}", end=end, file=out, flush=True)
        elif time.monotonic() - told > EVERY or done == total:
            told = time.monotonic()
            print(f"{name}: {done}/{total} {text}", file=out, flush=True)

    return tell


def _say(
    document: dict[str, Any],
    new: Lockfile,
    changes: tuple[moved.Change, ...],
    check: bool,
    out: TextIO,
) -> None:
    lines = [f"  note: {note}" for note in document["notes"]]
    lines += [
        f"  {each.axis} {each.asked} = {each.text}" + (f" ({each.build})" if each.build else "")
        for each in new.values
    ]
    lines += [f"  no versions fit: {cell}: {why}" for cell, why in document["conflicts"].items()]
    lines += [f"  {each}" for each in changes[:SHOWN]]
    lines += [f"  and {len(changes) - SHOWN} more changes"] if len(changes) > SHOWN else []
    state = "written" if not check else "stale" if changes else "holds"
    head = f"{new.matrix}: {document['file']} {state}: {document['locked']} locks"
    print(f"{head}, {document['seconds']} s", *lines, sep="\n", file=out, flush=True)
