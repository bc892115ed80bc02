"""YAML documents, read with their place in the file for every complaint."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinproof.errors import ConfigurationError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Part:
    """A mapping in a document. ``where`` names its place in messages, ``remedy`` ends them."""

    values: Mapping[str, Any]
    where: str
    remedy: str = ""

    def error(self, key: str, why: str) -> ConfigurationError:
        """Return the complaint about one key."""
        return ConfigurationError(f"{self.where}: {key} {why}", remedy=self.remedy)

    def keys(self, known: Collection[str]) -> None:
        """Raise ConfigurationError for a key that is not `known`."""
        for key in self.values:
            if key not in known:
                hint = did_you_mean(str(key)[:60], known)
                raise self.error(repr(str(key)[:60]), f"is unknown.{hint}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string. A bare 13.0 is a number in YAML, and 12.10 the number 12.1."""
        value = self.values.get(key, default)
        if isinstance(value, (int, float)):
            raise self.error(key, f'is the number {value}: put it in quotes, "{value}"')
        if not isinstance(value, str) or (not value and default is None):
            raise self.error(key, "must be a text that is not empty")
        return value

    def texts(self, key: str, *, empty: bool = False) -> tuple[str, ...]:
        """Return a list of strings, which must hold something unless it may be `empty`."""
        values = self.values.get(key, [] if empty else None)
        fits = isinstance(values, list) and all(isinstance(each, str) and each for each in values)
        if not fits or not (values or empty):
            raise self.error(key, "must be a list of texts")
        return tuple(values or ())

    def part(self, key: str) -> Part:
        """Return the mapping under `key`; an absent one is empty."""
        return part(self.values.get(key, {}), f"{self.where}: {key}", self.remedy)

    def parts(self, key: str) -> list[Part]:
        """Return the list of mappings under `key`."""
        values = self.values.get(key)
        if not isinstance(values, list):
            raise self.error(key, "must be a list")
        return [
            part(each, f"{self.where}: {key} {number}", self.remedy)
            for number, each in enumerate(values, start=1)
        ]


def part(value: Any, where: str, remedy: str = "") -> Part:
    """Return `value` as a `Part`. Raises ConfigurationError where it is no mapping of texts."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{where}: must be a mapping of names", remedy=remedy)
    return Part(values=value, where=where, remedy=remedy)


def read(path: Path, where: str, remedy: str = "") -> Part:
    """Read a YAML file. Raises ConfigurationError where it is none."""
    return parse(text_of(path, remedy), where, remedy)


def text_of(path: Path, remedy: str = "") -> str:
    """Return the text of a file. Raises ConfigurationError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{path} cannot be read: {why}", remedy=remedy) from None


def parse(text: str, where: str, remedy: str = "") -> Part:
    """Return the document in `text`. Raises ConfigurationError where it is no YAML mapping."""
    # Not at the top: only conda cells need it, and the noxfile's imports are paid by every call.
    import yaml

    try:
        value = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigurationError(f"{where}{line} is no YAML: {problem}", remedy=remedy) from None
    return part(value, where, remedy)


def write(document: Mapping[str, Any], comment: str) -> str:
    """Return `document` as YAML in its own order, under a comment."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    body: str = yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)
    return "".join(f"# {line}\n" for line in comment.splitlines()) + body
