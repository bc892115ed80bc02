"""What verbs share: options written once, and what is made of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pinproof.command import Asked, Option, option, switch
from pinproof.errors import ConfigurationError
from pinproof.evidence.store import read_json, write_json
from pinproof.options import Options, root
from pinproof.plan.stage import Stage

MATRIX = option("--matrix", metavar="NAME", help="the matrix; else this machine's")
SELECT = option(
    "--select", metavar="EXPR", default="", help="cells: torch >= '2.11' and vllm != 'none'"
)
CELLS = option(
    "--cell", dest="cells", metavar="ID", action="append", help="only this cell; may be repeated"
)
BACKEND = (
    option("--backend", metavar="NAME", help="uv, system or conda, for every cell"),
    option("--python", metavar="EXE", help="the interpreter that the system back end uses"),
)
WHEELHOUSE = option(
    "--wheelhouse", metavar="DIR", type=Path, help="the only place wheels come from"
)
FILE = option("--matrix-file", metavar="FILE", type=Path, help="default: matrix.toml")
STORE = option("--store", metavar="DIR", type=Path, help="evidence; default: .pinproof")
JSON = switch("--json", "JSON on standard output")

#: What chooses and describes a run, whether it is made or only planned.
RUN = (
    MATRIX,
    CELLS,
    SELECT,
    option("--until", metavar="STAGE", help="the last stage to run"),
    *BACKEND,
    switch("--fresh", "measure again what evidence is there for"),
    switch("--sanitize", "also call every candidate under compute-sanitizer"),
    switch("--offline", "no network"),
    WHEELHOUSE,
    FILE,
    STORE,
    JSON,
)


def options_of(asked: Asked) -> Options:
    """Build the options from what a verb was given; what it does not take is not given."""
    told = vars(asked)
    until = told.get("until")
    wheelhouse = told.get("wheelhouse")
    return Options(
        matrix_file=given(asked.matrix_file, "matrix.toml"),
        store=given(asked.store, ".pinproof"),
        matrix=asked.matrix,
        cells=tuple(told.get("cells") or ()),
        select=told.get("select", ""),
        until=Stage.parse(until) if until is not None else None,
        backend=told.get("backend"),
        python=told.get("python"),
        jobs=told.get("jobs"),
        dry_run=told.get("dry_run", False),
        fresh=told.get("fresh", False),
        sanitize=told.get("sanitize", False),
        offline=told.get("offline", False),
        wheelhouse=wheelhouse.absolute() if wheelhouse else None,
    )


def given(path: Path | None, name: str) -> Path:
    """Return the path that was given, without ``..`` in it, else `name` in the project."""
    if path is None:
        return root() / name
    return path.resolve() if ".." in path.parts else path.absolute()


def json_file(about: str) -> Option:
    """Describe ``--json FILE`` of a verb whose document says `about`; see `Document`."""
    return option("--json", metavar="FILE", type=Path, help=f"{about} as JSON; - is the output")


@dataclass(frozen=True)
class Document:
    """Where ``--json FILE`` puts a document: in that file, or for ``-`` on standard output."""

    path: Path | None

    @classmethod
    def at(cls, path: Path | None, inputs: Iterable[Path] = ()) -> Document:
        """Check `path` before any work is done.

        Raises ConfigurationError for a directory that is not there, for one of `inputs`, and for
        whatever else is no earlier document of ours: ``--json *.log`` must not write over a log.
        """
        if path is None or path == Path("-") or (path.parent.is_dir() and not path.exists()):
            return cls(path)
        remedy = "name a new file, or - for standard output"
        if not path.parent.is_dir():
            raise ConfigurationError(f"--json {path}: there is no such directory", remedy=remedy)
        if any(each.exists() and path.samefile(each) for each in inputs):
            raise ConfigurationError(f"--json {path}: that is what is to be read", remedy=remedy)
        held = read_json(path) if path.is_file() else None
        if not (isinstance(held, dict) and "schema" in held):
            what = "this exists, and is no document of ours to write over"
            raise ConfigurationError(f"--json {path}: {what}", remedy=remedy)
        return cls(path)

    @property
    def beside(self) -> TextIO:
        """The stream for people: with ``--json -`` standard output is the document's alone."""
        return sys.stderr if self.path == Path("-") else sys.stdout

    def write(self, document: Any) -> None:
        """Write it where it belongs, if it was asked for."""
        if self.path == Path("-"):
            print_json(document)
        elif self.path is not None:
            write_json(self.path, document)


def print_json(document: Any) -> None:
    """Print a document as JSON on standard output."""
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    print()
