"""From TOML tables to dataclasses, and the errors on the way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jsonschema
import pytest

from pinproof.errors import ConfigurationError
from pinproof.matrix import schema
from pinproof.matrix.schema import Form, Where, option


@dataclass(frozen=True, kw_only=True)
class Leaf:
    name: str = option(about="a name", form=Form(r"[a-z]+", "lower-case letters"))
    kind: Literal["small", "large"] | None = option(about="a kind", default=None)


@dataclass(frozen=True, kw_only=True)
class Tree:
    height: float = option(about="a height", above=0)
    rings: int = option(about="a count", default=1)
    alive: bool = option(about="a flag", default=True)
    leaf: tuple[Leaf, ...] = option(about="leaves", default=(), filled=True)
    crown_shape: Mapping[str, tuple[str, ...]] = option(
        about="shapes", default={}, keys=("oak", "elm")
    )


HERE = Where("tree.toml")


def convert(table: object) -> Tree:
    return schema.convert(Tree, table, HERE)


def test_a_table_becomes_its_dataclass_with_kebab_case_keys_and_defaults() -> None:
    tree = convert(
        {"height": 2, "leaf": [{"name": "a", "kind": "small"}], "crown-shape": {"oak": ["round"]}}
    )
    assert tree == Tree(
        height=2.0, leaf=(Leaf(name="a", kind="small"),), crown_shape={"oak": ("round",)}
    )
    assert tree.rings == 1
    assert tree.alive


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"heigth": 1}, "tree.toml: heigth: unknown key 'heigth'. Did you mean 'height'?"),
        ({}, "tree.toml: the key 'height' is missing"),
        ([], "tree.toml: expected a table, got a list"),
        ({"height": "1"}, "tree.toml: height: expected a number, got a string"),
        ({"height": True}, "tree.toml: height: expected a number, got true or false"),
        ({"height": 0}, "tree.toml: height: must be greater than 0"),
        ({"height": float("nan")}, "tree.toml: height: is not a finite number"),
        ({"height": 10**400}, "tree.toml: height: is not a finite number"),
        ({"height": 1, "rings": 1.0}, "tree.toml: rings: expected an integer, got a number"),
        ({"height": 1, "rings": True}, "tree.toml: rings: expected an integer"),
        ({"height": 1, "leaf": []}, "tree.toml: leaf: is empty"),
        ({"height": 1, "leaf": {}}, "tree.toml: leaf: expected a list, got a table"),
        ({"height": 1, "leaf": [{"name": 3.1}]}, "[[leaf]] #1: name: expected a string"),
        (
            {"height": 1, "leaf": [{"name": "A"}]},
            "[[leaf]] \"A\": name: 'A' must be lower-case letters",
        ),
        ({"height": 1, "leaf": [{"name": "a\0"}]}, "name: holds a NUL character"),
        ({"height": 1, "leaf": [{"name": "a\n"}]}, "must be lower-case letters"),
        (
            {"height": 1, "leaf": [{"name": "a", "kind": "larg"}]},
            "tree.toml: [[leaf]] \"a\": kind: unknown value 'larg'. Did you mean 'large'?",
        ),
        ({"height": 1, "crown-shape": {"ok": []}}, "crown-shape.ok: unknown key 'ok'"),
        ({"height": 1, "crown-shape": {"oak": [1]}}, "crown-shape.oak[0]: expected a string"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(table: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        convert(table)
    rest = caught.value.what.removeprefix("tree.toml: ")
    assert message.removeprefix("tree.toml: ") in rest
    assert caught.value.what.startswith("tree.toml: ")


def test_a_number_where_a_string_belongs_says_to_quote_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        convert({"height": 1, "crown-shape": {"oak": [3.10]}})
    assert "3.10 is the number 3.1" in caught.value.remedy


def test_control_characters_of_a_key_do_not_reach_the_terminal() -> None:
    with pytest.raises(ConfigurationError) as caught:
        convert({"\x1b[31m": 1})
    assert "\x1b" not in str(caught.value)


def test_the_json_schema_takes_and_refuses_what_the_loader_does() -> None:
    validator = jsonschema.Draft202012Validator(schema.json_schema(Tree))
    validator.check_schema(validator.schema)
    good = {"height": 1, "leaf": [{"name": "a", "kind": "small"}], "crown-shape": {"elm": []}}
    bad = [
        {"height": 1, "colour": "green"},
        {"height": 0},
        {"height": 1, "leaf": []},
        {"height": 1, "leaf": [{"name": "A"}]},
        {"height": 1, "leaf": [{"name": "a", "kind": "tiny"}]},
        {"height": 1, "crown-shape": {"ash": []}},
        {"rings": 2},
    ]
    assert validator.is_valid(good)
    convert(good)
    for table in bad:
        assert not validator.is_valid(table)
        with pytest.raises(ConfigurationError):
            convert(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = ", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML"),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b"a = " + b"[" * 20_000, "nested too deeply"),
        (b'a = "\xff"', "is not UTF-8: byte 5 is 0xff"),
        (b"#" * 2_000_000, "is larger than"),
    ],
)
def test_a_file_that_is_no_toml_is_named_with_the_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "matrix.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^matrix\.toml: ") as caught:
        schema.read_toml(path)
    assert message in caught.value.what


def test_a_path_that_is_no_file_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a directory"):
        schema.read_toml(tmp_path)
    with pytest.raises(ConfigurationError, match="does not exist"):
        schema.read_toml(tmp_path / "matrix.toml")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="is not a file"):
        schema.read_toml(tmp_path / "pipe")


def test_a_path_that_no_file_can_have_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        schema.read_toml(tmp_path / ("x" * 5000))
    with pytest.raises(ConfigurationError):
        schema.read_toml(tmp_path / "a\0b")
