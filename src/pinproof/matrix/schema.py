"""From TOML tables to frozen dataclasses, strictly, and from the same dataclasses to JSON Schema.

One description serves both: a field's type, its default and what `option` says of it. Keys are
the field names in kebab-case. It stands in for msgspec or pydantic because every `nox` call
imports it, in an environment that holds nothing but nox.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pinproof.errors import ConfigurationError, did_you_mean

T = TypeVar("T")

#: Larger than any matrix that a person wrote; keeps a wrong path from filling the memory.
LARGEST_FILE = 1_000_000

_UNIONS = (types.UnionType, typing.Union)

#: What TOML calls its types, for messages and for JSON Schema.
_NAMES: dict[type, tuple[str, str]] = {
    str: ("a string", "string"),
    bool: ("true or false", "boolean"),
    int: ("an integer", "integer"),
    float: ("a number", "number"),
    list: ("a list", "array"),
    dict: ("a table", "object"),
}


class Where(NamedTuple):
    """A place in a file, written as ``matrix.toml: [[matrix]] "cpu": axes.torch[2]``."""

    prefix: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.prefix}: {self.path}" if self.path else self.prefix

    def key(self, name: str) -> Where:
        """Return the place of the key `name` of this table."""
        shown = name if re.fullmatch(r"[\w-]{1,60}", name, re.ASCII) else _quoted(name)
        return Where(self.prefix, f"{self.path}.{shown}" if self.path else shown)

    def item(self, index: int, raw: object = None) -> Where:
        """Return the place of an item; a top-level table is called by its own name or id."""
        if "." in self.path or not isinstance(raw, dict) or ": [[" in self.prefix:
            return Where(self.prefix, f"{self.path}[{index}]")
        name = raw.get("name", raw.get("id"))
        label = _quoted(name) if isinstance(name, str) else f"#{index + 1}"
        return Where(f"{self.prefix}: [[{self.path}]] {label}")

    def error(self, what: str, *, cause: str = "", remedy: str = "") -> ConfigurationError:
        """Return the error that says `what` is wrong here."""
        return ConfigurationError(f"{self}: {what}", cause=cause, remedy=remedy)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Put this place before whatever ConfigurationError is raised within."""
        try:
            yield
        except ConfigurationError as error:
            raise self.error(error.what, cause=error.cause, remedy=error.remedy) from None


def _quoted(name: str) -> str:
    return '"' + name[:60].encode("unicode_escape").decode("ascii") + '"'


class Form(NamedTuple):
    """How a string must look: as a regular expression, and in words that follow "must be"."""

    pattern: str
    words: str


#: A line of text that says something.
TEXT = Form(r"\S.*", "a line of text that does not start with a blank")


def option(
    *,
    about: str,
    default: Any = dataclasses.MISSING,
    form: Form | None = None,
    keys: Form | tuple[str, ...] = (),
    above: float | None = None,
    most: float | None = None,
    filled: bool = False,
    also: Mapping[str, Any] | None = None,
) -> Any:
    """Return a dataclass field with what the loader and the JSON Schema must know of it.

    `form`, `above` (an exclusive minimum) and `most` hold for the strings and numbers in it, `keys`
    (a form or the allowed words) for a table's keys; `filled` forbids empty lists and tables.
    `also` is a JSON Schema that may stand for a list, which the loader replaces before it converts.
    """
    metadata = {
        "about": about,
        "form": form,
        "keys": keys,
        "above": above,
        "most": most,
        "filled": filled,
        "also": also,
    }
    if isinstance(default, dict):  # an empty one; dataclasses want a new one for each object
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_toml(path: Path, largest: int = LARGEST_FILE) -> dict[str, Any]:
    """Read a TOML file of at most `largest` bytes.

    Raises ConfigurationError for everything that keeps it from being one.
    """
    where = Where(path.name or str(path))
    try:
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "is not a file"
            what = what if path.exists() else "does not exist"
            raise where.error(f"{what} ({path})", remedy="give the path of a matrix file")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except (OSError, ValueError) as error:
        raise where.error(f"cannot be read: {error}") from None
    if len(content) > largest:
        raise where.error(f"is larger than {largest:,} bytes")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors write a mark before it
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise where.error(f"is not UTF-8: byte {error.start} is 0x{byte:02x}") from None
    except RecursionError:
        raise where.error("is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and int() of a number with 5,000 digits
        raise where.error(f"is not TOML: {error}") from None


def convert(kind: type[T], raw: object, where: Where) -> T:
    """Return the dataclass `kind` made from a TOML table.

    Raises ConfigurationError, with the place, for an unknown or a missing key, a value of
    another type, and a value that breaks what `option` says of its field.
    """
    if not isinstance(raw, dict):
        raise _wrong(dict, raw, where)
    known = {field.name.replace("_", "-"): field for field in _fields(kind)}
    for key in raw:
        if key not in known:
            raise _unknown(key, known, where)
    hints = _hints(typing.cast(type, kind))
    values = {}
    for key, field in known.items():
        if key in raw:
            place = where.key(key)
            values[field.name] = _value(hints[field.name], raw[key], place, field.metadata)
        elif _is_required(field):
            raise where.error(f"the key {key!r} is missing")
    return kind(**values)


def _fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields that a file may set: those made by `option`."""
    return tuple(field for field in dataclasses.fields(kind) if field.metadata)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return dataclasses.MISSING is field.default is field.default_factory


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(hint: Any, raw: object, where: Where, rules: Mapping[str, Any]) -> Any:
    if dataclasses.is_dataclass(hint):
        return convert(typing.cast(type, hint), raw, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:  # only ever "X | None", and TOML has no null
        return _value(arguments[0], raw, where, rules)
    if origin is Literal:
        if not isinstance(raw, str):
            raise _wrong(str, raw, where)
        if raw not in arguments:
            raise _unknown(raw, arguments, where, what="value")
        return raw
    if origin is tuple:
        if not isinstance(raw, list):
            raise _wrong(list, raw, where)
        _check_filled(raw, where, rules)
        return tuple(
            _value(arguments[0], item, where.item(index, item), rules)
            for index, item in enumerate(raw)
        )
    if origin is Mapping:
        if not isinstance(raw, dict):
            raise _wrong(dict, raw, where)
        _check_filled(raw, where, rules)
        for key in raw:
            _check_key(key, where, rules["keys"])
        rules = {**rules, "keys": ()}  # they are those of the outer table
        return {key: _value(arguments[1], item, where.key(key), rules) for key, item in raw.items()}
    return _scalar(hint, raw, where, rules)


def _scalar(kind: type, raw: object, where: Where, rules: Mapping[str, Any]) -> Any:
    if kind is float and type(raw) is int:
        raw = float(raw) if abs(raw) < 1e15 else math.inf
    if type(raw) is not kind:
        raise _wrong(kind, raw, where)
    if isinstance(raw, str):
        if "\0" in raw:
            raise where.error("holds a NUL character")
        form = rules["form"]
        if form and not re.fullmatch(form.pattern, raw, re.ASCII):
            raise where.error(f"{raw[:80]!r} must be {form.words}")
    if isinstance(raw, float) and not math.isfinite(raw):
        raise where.error("is not a finite number")
    above = rules["above"]
    if isinstance(raw, (int, float)) and above is not None and raw <= above:
        raise where.error(f"must be greater than {above:g}")
    if isinstance(raw, (int, float)) and rules["most"] is not None and raw > rules["most"]:
        raise where.error(f"must be {rules['most']:,} at most")
    return raw


def _check_filled(raw: list[Any] | dict[str, Any], where: Where, rules: Mapping[str, Any]) -> None:
    if not raw and rules["filled"]:
        raise where.error("is empty", remedy="give it at least one entry, or leave the key out")


def _check_key(key: str, where: Where, keys: Form | tuple[str, ...]) -> None:
    if isinstance(keys, Form):
        if not re.fullmatch(keys.pattern, key, re.ASCII):
            raise where.key(key).error(f"the name must be {keys.words}")
    elif keys and key not in keys:
        raise _unknown(key, keys, where)


def _wrong(kind: type, raw: object, where: Where) -> ConfigurationError:
    got = _NAMES.get(type(raw), (f"a {type(raw).__name__}", ""))[0]
    number = kind is str and type(raw) in (int, float)
    remedy = "put it between quotes: 3.10 is the number 3.1" if number else ""
    return where.error(f"expected {_NAMES[kind][0]}, got {got}", remedy=remedy)


def _unknown(
    word: str, known: typing.Iterable[str], where: Where, *, what: str = "key"
) -> ConfigurationError:
    place = where.key(word) if what == "key" else where
    hint = did_you_mean(word[:60], known)
    return place.error(
        f"unknown {what} {word[:60]!r}.{hint}", remedy=f"use one of: {', '.join(known)}"
    )


def json_schema(kind: type) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the tables that `convert` takes for `kind`."""
    fields = _fields(kind)
    hints = _hints(kind)
    required = [field.name.replace("_", "-") for field in fields if _is_required(field)]
    return {
        "type": "object",
        "properties": {
            field.name.replace("_", "-"): _field_schema(hints[field.name], field)
            for field in fields
        },
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _field_schema(hint: Any, field: dataclasses.Field[Any]) -> dict[str, Any]:
    schema = {"description": field.metadata["about"], **_schema(hint, field.metadata)}
    if isinstance(field.default, (str, int, float)):
        schema["default"] = field.default
    elif isinstance(field.default, tuple) and all(isinstance(item, str) for item in field.default):
        schema["default"] = list(field.default)
    return schema


def _schema(hint: Any, rules: Mapping[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(hint):
        return json_schema(typing.cast(type, hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return _schema(arguments[0], rules)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        items = _schema(arguments[0], rules)
        schema = {"type": "array", "items": items, **({"minItems": 1} if rules["filled"] else {})}
        return {"anyOf": [schema, rules["also"]]} if rules["also"] else schema
    if origin is Mapping:
        values = _schema(arguments[1], {**rules, "keys": ()})
        size = {"minProperties": 1} if rules["filled"] else {}
        return {"type": "object", **_keys_schema(rules["keys"], values), **size}
    scalar: dict[str, Any] = {"type": _NAMES[hint][1]}
    if rules["form"] and hint is str:
        scalar["pattern"] = f"^(?:{rules['form'].pattern})$"
    if rules["most"] is not None and hint in (int, float):
        scalar["maximum"] = rules["most"]
    if rules["above"] is not None and hint in (int, float):
        scalar["exclusiveMinimum"] = rules["above"]
    return scalar


def _keys_schema(keys: Form | tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    if isinstance(keys, Form):
        names = {"propertyNames": {"pattern": f"^(?:{keys.pattern})$"}}
        return {**names, "additionalProperties": values}
    if keys:
        return {"properties": dict.fromkeys(keys, values), "additionalProperties": False}
    return {"additionalProperties": values}
