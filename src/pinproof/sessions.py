"""What the noxfile calls; every `nox` call pays for it: standard library, packaging, nox only."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import nox

from pinproof.errors import PinproofError
from pinproof.matrix import axis, matrixfile
from pinproof.matrix import cell as cells_module
from pinproof.matrix.cell import Cell

#: What Ctrl-C gives the run to end its children and to print what is known, in seconds.
LAST_WORDS = 30.0

#: The verbs of `pinproof` beside `run`, which is the session `matrix`, with what each does.
VERBS = {
    "report": "Print the table again from stored evidence.",
    "pins": "Write constraints.txt and PINS.md of a safe cell: `nox -s pins -- [CELL|best]`.",
    "archive": "Keep the very files of safe cells: `nox -s archive -- CELL... --out DIR`.",
    "plan": "Say what a run would do, and why; nothing is changed.",
    "expand": "List every cell, the excluded ones with their rule.",
    "explain": "Say everything that is known of a cell: `nox -s explain -- CELL`.",
    "fuzz": "Search the kernels of a cell for failures: `nox -s fuzz -- CELL`.",
    "defects": "List the known defects of the kernels under test.",
    "audit": "Say which GPU code libraries hold: `nox -s audit -- WHEEL|DIRECTORY|REQUIREMENT...`.",
    "build": "Build one wheel from source: `nox -s build -- --help`.",
    "cache": "List, verify or prune the wheels that were built: `nox -s cache -- list`.",
    "triage": "Say which known failures logs hold: `nox -s triage -- LOG...`.",
    "lock": "Fix nightlies, commits and every wheel of a matrix: `nox -s lock -- --help`.",
    "conda": "Lock, check or install conda environments: `nox -s conda -- lock|check|install`.",
    "schema": "Print the JSON Schema of matrix.toml, for editors.",
}


def cells(path: Path, words: Sequence[str] = ("--list",)) -> Iterator[Cell]:
    """Yield every cell of the matrix file that can be tried, each id once, as sessions of nox.

    `words` are nox's. What has no session is told on stderr, and yields nothing: a matrix of more
    than `matrixfile.LIMIT` combinations, since nox would take minutes over them, and a broken file;
    the other sessions must still work.
    """
    seen: dict[str, Cell] = {}
    try:
        for matrix in matrixfile.load(path).matrices:
            if matrix.size > matrixfile.LIMIT:
                why = f"{matrix.size:,} combinations are too many for sessions"
                _tell(f"{matrix.name}: {why}; {_instead(matrix.name, 'ID')}")
                continue
            for cell in cells_module.expand(matrix):
                if cell.exclusion is not None:
                    continue
                other = seen.setdefault(cell.id, cell)
                if other is cell:
                    yield cell
                elif axis.meaning(cell.axes) != axis.meaning(other.axes):
                    why = f"the session {cell.id} is another one of {other.matrix}"
                    _tell(f"{cell.matrix}: {why}; {_instead(cell.matrix, cell.id)}")
    except PinproofError as error:
        # A session that reads the file tells the error by itself.
        listing = {"-l", "--list", "--list-sessions"}.intersection(words)
        _tell(f"no cells: {error if listing else f'{path.name} is wrong: `nox -l` says where'}")


def _tell(text: str) -> None:
    print(f"pinproof: {text}", file=sys.stderr)


def _instead(matrix: str, cell: str) -> str:
    return f"use `nox -s matrix -- --matrix {matrix} --cell {cell}`"


def for_cell(cell: Cell, root: Path) -> Callable[[nox.Session], None]:
    """Return the session that proves one cell alone; its docstring is what `nox -l` shows."""

    def prove(session: nox.Session) -> None:
        pinproof(session, root, "run", "--cell", cell.id, *session.posargs)

    prove.__doc__ = f"{cell.matrix}: {cell.label}"
    return prove


def for_verb(verb: str, about: str, root: Path) -> Callable[[nox.Session], None]:
    """Return the session that hands its arguments on to a verb; `about` is what `nox -l` shows."""

    def do(session: nox.Session) -> None:
        pinproof(session, root, verb, *session.posargs)

    do.__doc__ = about
    return do


def install_host(session: nox.Session, root: Path) -> None:
    """Install what the host needs, unless that very list is installed already.

    With ``--offline`` and ``--wheelhouse DIR`` among the arguments only DIR is read.
    """
    project = tomllib.loads(root.joinpath("pyproject.toml").read_text(encoding="utf-8"))
    _install_once(session, project["project"]["dependencies"])


def install_group(session: nox.Session, root: Path, *groups: str) -> None:
    """Install the host's needs and dependency groups, and make `src` importable."""
    project = tomllib.loads(root.joinpath("pyproject.toml").read_text(encoding="utf-8"))
    wanted = list(project["project"]["dependencies"])
    for group in groups:
        wanted += project["dependency-groups"][group]
    _install_once(session, wanted)
    session.env["PYTHONPATH"] = str(root / "src")


def _install_once(session: nox.Session, requirements: list[str]) -> None:
    stamp = Path(session.virtualenv.location) / "pinproof-installed"
    digest = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return
    wheelhouse = _option(session.posargs, "--wheelhouse")
    source = ("--no-index", "--find-links", wheelhouse) if wheelhouse else ()
    # What a caller's PYTHONPATH holds would count as installed, and be missing in a run.
    session.install(*source, *requirements, env={"PYTHONPATH": None})
    stamp.write_text(digest, encoding="utf-8")


def _option(words: list[str], name: str) -> str | None:
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def pinproof(session: nox.Session, root: Path, *words: str) -> None:
    """Run the `pinproof` command in the host environment, with its exit code as nox's own."""
    python = Path(session.cache_dir).parent / "host" / "bin" / "python"
    try:
        session.run(
            str(python),
            "-m",
            "pinproof",
            *words,
            env={"PYTHONPATH": str(root / "src"), "PINPROOF_ROOT": str(root)},
            external=True,
            log=False,
            stderr=None,  # with --json standard output is for the document alone
            interrupt_timeout=LAST_WORDS,
            terminate_timeout=LAST_WORDS,
        )
    except nox.command.CommandFailed as failure:
        _leave(session, failure.return_code or 1)


def _leave(session: nox.Session, code: int) -> NoReturn:
    """End with `code`. Nox knows only 0 and 1, so any other code ends it here and now."""
    if code == 1:
        session.error("pinproof ended with exit code 1: the answer above is no")
    raise SystemExit(code)
