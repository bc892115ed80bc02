"""What the host asks of a cell: one JSON file, validated whole before anything is imported."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pinproof_cell.candidates import ABSENT, check_name

SCHEMA = 1


class BadRequestError(Exception):
    """The request cannot be served; the message is one line for a person."""


def check_candidate(name: str) -> None:
    """Raise BadRequestError for a name that is neither a candidate nor a provider's file."""
    try:
        check_name(name)
    except ValueError as error:
        raise BadRequestError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One stage of one cell.

    ``target`` is ``"cpu"`` or an architecture such as ``"sm_90"``; ``axes`` are the cell's axis
    values as text; ``budget`` is the time that throughput may take, in seconds, or None for the
    stage's own. ``candidates`` are names, or ``FILE.py:NAME``, which correctness and sanitize
    take in place of what the axes bring. ``without`` says by distribution what its build left out
    (see `pinproof_cell.suite.absent`): a refusal of that is expected.
    """

    cell: str
    target: str
    axes: Mapping[str, str]
    uses: tuple[str, ...] = ()
    suite_dir: str = ""
    seed: int = 0
    budget: float | None = None
    candidates: tuple[str, ...] = ()
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    schema: int = field(default=SCHEMA)

    @classmethod
    def load(cls, path: Path) -> Request:
        """Read a request from `path`. Raises BadRequestError where that is none."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadRequestError(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise BadRequestError(f"{path} is not JSON: {error}") from None
        return cls.parse(document)

    @classmethod
    def parse(cls, document: object) -> Request:
        """Validate a decoded request. Raises BadRequestError that names the key at fault."""
        if not isinstance(document, dict):
            raise BadRequestError("the request is not a JSON object")
        if document.get("schema") != SCHEMA:
            raise BadRequestError(f"schema is {document.get('schema')!r}; this cell reads {SCHEMA}")
        known = [item.name for item in fields(cls)]
        for key in document:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                raise BadRequestError(
                    f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
        for key in ("cell", "target", "axes"):
            if key not in document:
                raise BadRequestError(f"{key} is missing")
        for key, (valid, wanted) in _WANTED.items():
            if key in document and not valid(document[key]):
                raise BadRequestError(f"{key} is {document[key]!r}, not {wanted}")
        lists = {key: tuple(document.get(key, ())) for key in ("uses", "candidates")}
        without = {name: tuple(each) for name, each in document.get("without", {}).items()}
        return cls(**{**document, **lists, "without": without})

    def document(self) -> dict[str, Any]:
        """Return the request as JSON values, with every default filled in."""
        lists = {"uses": list(self.uses), "candidates": list(self.candidates)}
        without = {name: list(each) for name, each in self.without.items()}
        return asdict(self) | {"axes": dict(self.axes), **lists, "without": without}

    def asks_for(self, axis: str) -> bool:
        """Return whether the cell installs a package of its own for `axis`."""
        return self.axes.get(axis, "none") not in ABSENT


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_table_of_words(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_word, value.values()))


def _is_list_of_words(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_word, value))


def _is_table_of_lists(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_list_of_words, value.values()))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_budget(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (number and 0 < value < float("inf"))  # type: ignore[operator]


_WANTED = {
    "cell": (_is_word, "a word"),
    "target": (_is_word, "a word such as 'cpu' or 'sm_90'"),
    "axes": (_is_table_of_words, "a table of axis values as text"),
    "uses": (_is_list_of_words, "a list of words"),
    "suite_dir": (lambda value: isinstance(value, str), "a path"),
    "seed": (_is_count, "a whole number from 0"),
    "candidates": (_is_list_of_words, "a list of words"),
    "without": (_is_table_of_lists, "a table of lists of words"),
    "budget": (_is_budget, "a positive number of seconds"),
}
