"""matrix.toml: what loads, what is refused and how, and what a cell gets from it."""

from __future__ import annotations

import copy
import itertools
import json
import string
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinproof.errors import ConfigurationError
from pinproof.matrix import matrixfile
from pinproof.matrix.cell import Cell, expand, select
from pinproof.matrix.matrixfile import Matrix, MatrixFile

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "matrix.toml"
SCHEMA = ROOT / "src" / "pinproof" / "data" / "matrix.schema.json"

HEAD = """
format = 1
[targets.cpu]
[targets.sm_120]
"""
SMALL = (
    HEAD
    + """
[[matrix]]
name = "small"
target = "cpu"
[matrix.axes]
torch = ["2.11.0", "2.13.0"]
triton = ["3.6.0", "3.7.1"]
"""
)


def load(tmp_path: Path, text: str) -> MatrixFile:
    path = tmp_path / "matrix.toml"
    path.write_text(text, encoding="utf-8")
    return matrixfile.load(path)


def refusal(tmp_path: Path, text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert caught.value.what.startswith("matrix.toml: ")
    return caught.value


def test_the_shipped_file_has_the_four_matrices() -> None:
    file = matrixfile.load(SHIPPED)
    assert [matrix.name for matrix in file.matrices] == [
        "cpu",
        "hopper",
        "blackwell-release",
        "blackwell-nightly",
    ]


@pytest.mark.parametrize(
    ("target", "name"), [("cpu", "cpu"), ("sm_90", "hopper"), ("sm_120", "blackwell-release")]
)
def test_each_target_has_a_matrix_to_run_if_none_is_named(target: str, name: str) -> None:
    chosen = matrixfile.load(SHIPPED).default_for(target)
    assert chosen is not None
    assert chosen.name == name


def test_a_target_without_a_matrix_has_no_default() -> None:
    assert matrixfile.load(SHIPPED).default_for("sm_86") is None


def test_the_vllm_cells_of_hopper_leave_out_what_fa2_and_fa3_do_not_need() -> None:
    hopper = matrixfile.load(SHIPPED).named("hopper")
    alone, vllm = (matrixfile.settings(hopper, cell) for cell in expand(hopper))
    assert alone.without == ()
    assert alone.env == ()
    assert "flashinfer-python" in vllm.without
    assert vllm.env == (("VLLM_USE_FLASHINFER_SAMPLER", "0"),)


def test_the_json_schema_for_editors_is_the_one_of_the_dataclasses() -> None:
    """Write it anew with json.dumps(matrixfile.json_schema(), indent=2, ensure_ascii=False)."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == matrixfile.json_schema()


def test_the_shipped_file_is_valid_by_the_schema_that_it_names() -> None:
    named = SHIPPED.read_text(encoding="utf-8").split("\n")[0].removeprefix("#:schema ")
    schema = json.loads((ROOT / named).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(SHIPPED.read_text(encoding="utf-8")), schema)


def test_a_list_of_the_axes_table_stands_where_a_matrix_names_it(tmp_path: Path) -> None:
    text = SMALL.replace('triton = ["3.6.0", "3.7.1"]', 'triton = "some"')
    file = load(tmp_path, text + '[axes.triton]\nsome = ["3.9.0"]\n')
    assert file.named("small").axes["triton"] == ("3.9.0",)


def test_an_unknown_matrix_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'hopper'") as caught:
        matrixfile.load(SHIPPED).named("hoper")
    assert "blackwell-release" in caught.value.remedy


M = 'matrix.toml: [[matrix]] "small": '
AXES = 'torch = ["2.11.0", "2.13.0"]\ntriton = ["3.6.0", "3.7.1"]'


def with_axes(text: str) -> str:
    return SMALL.replace(AXES, text)


def with_key(text: str) -> str:
    return SMALL.replace("[matrix.axes]", f"{text}\n[matrix.axes]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # the file as a whole
        ("", "matrix.toml: the key 'format' is missing"),
        (SMALL.replace("format = 1", "format = 2"), "format: this Pinproof reads format 1 only"),
        (SMALL.replace("format = 1", ""), "the key 'format' is missing"),
        (SMALL.replace("format = 1", "format = true"), "format: expected an integer"),
        (HEAD, "the key 'matrix' is missing"),
        (HEAD.replace("format = 1", "format = 1\nmatrix = 3"), "matrix: expected a list"),
        (HEAD.replace("format = 1", "format = 1\nmatrix = []"), "matrix: is empty"),
        ("matrices = 1\n" + SMALL, "unknown key 'matrices'. Did you mean 'matrix'?"),
        (SMALL + SMALL.replace(HEAD, ""), M + "another matrix has the same name"),
        # names
        (SMALL.replace('"small"', '"../up"'), "name: '../up' must be lower-case letters"),
        (SMALL.replace('"small"', '"a/b"'), "name: 'a/b' must be"),
        (SMALL.replace('"small"', '".."'), "must be lower-case letters"),
        (SMALL.replace('"small"', '"Small"'), "must be lower-case letters"),
        (SMALL.replace('"small"', '""'), "must be lower-case letters"),
        (
            SMALL.replace("[targets.cpu]", "[targets.gpu]"),
            'targets.gpu: the name must be "cpu", or',
        ),
        (SMALL.replace('target = "cpu"', 'target = "sm_12"'), "Did you mean 'sm_120'?"),
        (
            SMALL.replace('target = "cpu"', 'target = "../x"'),
            'must be "cpu", or an architecture such as',
        ),
        # axes
        (with_axes('torhc = ["2.11.0"]'), M + "axes.torhc: unknown key 'torhc'. Did you mean"),
        (with_axes("torch = []"), M + "axes.torch: is empty"),
        (with_axes("torch = [2.11]"), M + "axes.torch[0]: expected a string, got a number"),
        (with_axes("torch = 2"), M + "axes.torch: expected a list, got an integer"),
        (with_axes('torch = "2.11.0"'), "there is no list '2.11.0' in [axes.torch]"),
        (with_axes('torch = ["2.11.O"]'), M + "axes.torch[0]: '2.11.O' is not a version"),
        (with_axes('torch = ["2.11", "2.11.0"]'), "torch 2.11.0 is there twice (as torch 2.11)"),
        (with_axes('triton = ["3.6.0"]'), "every combination needs a torch"),
        (with_axes('torch = ["2.11.0"]\nvllm = ["git:a;b"]'), M + "axes.vllm[0]: 'git:a;b' has"),
        (with_axes(""), M + "axes: is empty"),
        (SMALL + '[axes.torch]\nold = ["2.x"]', "matrix.toml: axes.torch.old[0]: '2.x' is not"),
        (SMALL + "[axes.torch]\nold = 3", "matrix.toml: axes.torch.old: expected a list"),
        # zip
        (with_key('zip = [["torch", "cuda"]]'), M + "zip[0]: 'cuda' is not one of the axes"),
        (with_key("zip = [[]]"), M + "zip[0]: is empty"),
        (with_key('zip = [["torch", "tritn"]]'), "Did you mean 'triton'?"),
        (with_key('zip = [["torch", "torch"]]'), "zip[0]: 'torch' is in a zip group already"),
        (
            with_key('zip = [["torch", "triton"]]').replace('"3.6.0", ', ""),
            "zip[0]: zipped axes need equally many values: torch has 2, triton has 1",
        ),
        # include and exclude
        (with_key('include = [{ torhc = "2.8.0" }]'), "include[0].torhc: unknown key 'torhc'"),
        (with_key('include = [{ torch = "2.8.O" }]'), M + "include[0].torch: '2.8.O' is not"),
        (with_key('include = [{ vllm = "none" }]'), "every combination needs a torch"),
        (
            with_key('include = [{ triton = "3.6.0", torch = "2.11" }]'),
            M + "include[0]: this combination is in the matrix already",
        ),
        (
            with_key('include = [{ torch = "2.8.0" }, { torch = "2.8", triton = "bundled" }]'),
            M + "include[1]: this combination is in the matrix already",
        ),
        (
            with_key("exclude = [{ when = 'torch == \"2.11.0\"' }]"),
            M + "exclude[0]: the key 'reason' is missing",
        ),
        (
            with_key("exclude = [{ when = 'torch == \"2.11.0\"', reason = '' }]"),
            M + "exclude[0].reason: '' must be a line of text",
        ),
        (
            with_key("exclude = [{ when = 'torch == \"2.8.0\"', reason = 'old' }]"),
            M + "exclude[0].when: 'torch == \"2.8.0\"' matches no combination",
        ),
        (
            with_key("exclude = [{ when = 'torhc == \"2.8.0\"', reason = 'old' }]"),
            "Did you mean 'torch'?",
        ),
        (
            with_key("exclude = [{ when = 'target == \"cpu\"', reason = 'old' }]"),
            M + "exclude[0].when: a rule that names no axis would exclude every cell or none",
        ),
        # policy and overrides
        (with_key("policy = { requires = 'all' }"), "Did you mean 'require'?"),
        (with_key("policy = { uses = ['training', 'play'] }"), "policy.uses[1]: unknown value"),
        (with_key("policy = { min-throughput = 0 }"), "min-throughput: must be greater than 0"),
        (with_key("policy = { min-throughput = inf }"), "is not a finite number"),
        (with_key("policy = { require = 'vllm != \"none\"' }"), "policy.require: "),
        (with_key("checks = ['correctnes']"), "Did you mean 'correctness'?"),
        (with_key("backend = 'pixi'"), M + "backend: unknown value 'pixi'"),
        (with_key("conda = '../x'"), M + "conda: '../x' must be the name of a specification"),
        (with_key("timeouts = { biuld = 5 }"), "Did you mean 'build'?"),
        (with_key("timeouts = { build = -5 }"), M + "timeouts.build: must be greater than 0"),
        (with_key("exclude-newer = '2026-13-01'"), "exclude-newer: '2026-13-01' must be a day"),
        (with_key("exclude-newer = '2026-02-31'"), "'2026-02-31' names no day of the calendar"),
        (
            with_key("overrides = [{ select = 'torch > \"2.8\"', requirements = ['Torch==1'] }]"),
            M + "overrides[0].requirements[0]: 'Torch==1' asks for another torch",
        ),
        (
            with_key("overrides = [{ select = 'torch > \"2.8\"', patches = { vllm = ['a'] } }]"),
            M + "overrides[0].patches.vllm: no cell that this selects has a vllm to patch",
        ),
        (
            with_key("overrides = [{ select = 'torch > \"2.13\"', backend = 'system' }]"),
            M + "overrides[0].select: 'torch > \"2.13\"' matches no combination",
        ),
        (
            with_key("overrides = [{ select = 'torch > \"2.8\"', requirements = ['a b'] }]"),
            M + "overrides[0].requirements[0]: 'a b' is not a requirement",
        ),
        (
            with_key(
                "overrides = [{ select = 'torch > \"2.8\"', requirements = ['a @ file:///b'] }]"
            ),
            M + "overrides[0].requirements[0]: a is given by an address",
        ),
        (
            with_key("overrides = [{ select = 'torch > \"2.8\"', without = ['-x'] }]"),
            M + "overrides[0].without[0]: '-x' must be the name of a package",
        ),
        (
            with_key("overrides = [{ select = 'torch > \"2.8\"', env = { 'A=B' = '' } }]"),
            'overrides[0].env."A=B": the name must be letters, digits and',
        ),
        # size
        (with_key("limit = 3"), M + "has 4 combinations; the limit is 3"),
        (with_key("limit = 0"), M + "limit: must be greater than 0"),
        (with_key("limit = 1000001"), M + "limit: must be 1,000,000 at most"),
        (with_key("limit = 1e9"), M + "limit: expected an integer"),
        (with_key("limit = " + "9" * 5000), "is not TOML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    error = refusal(tmp_path, text)
    assert message in error.what
    assert error.exit_code == 2


def test_two_defaults_for_one_target_are_refused(tmp_path: Path) -> None:
    first = with_key("default = true")
    second = first.replace(HEAD, "").replace('"small"', '"other"')
    assert "'small' is the default of cpu already" in refusal(tmp_path, first + second).what


def test_a_selector_that_matches_nothing_is_answered_with_the_values_that_exist(
    tmp_path: Path,
) -> None:
    text = with_key("exclude = [{ when = 'torch == \"2.8.0\"', reason = 'old' }]")
    assert refusal(tmp_path, text).remedy == "it has torch 2.11.0, 2.13.0"


def test_the_size_is_known_without_expanding_so_a_huge_matrix_is_refused_at_once(
    tmp_path: Path,
) -> None:
    values = ", ".join(f'"1.{n}"' for n in range(400))
    axes = "\n".join(f"{name} = [{values}]" for name in ("torch", "triton", "flash-attn", "vllm"))
    assert "has 25,600,000,000 combinations" in refusal(tmp_path, with_axes(axes)).what


def test_an_include_that_the_product_does_not_have_is_taken(tmp_path: Path) -> None:
    text = with_key('include = [{ torch = "2.11.0" }, { torch = "2.8.0", triton = "3.6.0" }]')
    assert load(tmp_path, text).named("small").size == 6


def test_zipped_axes_may_repeat_a_value_as_long_as_their_pairs_differ(tmp_path: Path) -> None:
    text = with_key('zip = [["torch", "triton"]]').replace('"3.7.1"', '"3.6.0"')
    assert load(tmp_path, text).named("small").size == 2
    text = text.replace('"2.13.0"', '"2.11"')
    assert "torch 2.11, triton 3.6.0 is there twice" in refusal(tmp_path, text).what


def test_a_later_override_wins_and_lists_add_up(tmp_path: Path) -> None:
    text = with_key(
        """
backend = "uv"
timeouts = { build = 10 }
[[matrix.overrides]]
select = 'torch >= "2.11"'
backend = "system"
env = { A = "1", B = "1" }
without = ["x"]
[[matrix.overrides]]
select = 'torch == "2.13"'
profile = "serving"
env = { B = "2" }
without = ["x", "y"]
timeouts = { build = 20 }
requirements = ["numpy<2.4"]
"""
    )
    matrix = load(tmp_path, text).named("small")
    old, new = (
        matrixfile.settings(matrix, cell) for cell in select(expand(matrix), 'triton == "3.6.0"')
    )
    assert (old.backend, old.profile, old.env) == ("system", "stock", (("A", "1"), ("B", "1")))
    assert (new.backend, new.profile, new.env) == ("system", "serving", (("A", "1"), ("B", "2")))
    assert (old.without, new.without) == (("x",), ("x", "y"))
    assert new.requirements == ("numpy<2.4",)
    assert dict(old.timeouts)["build"] == 10
    assert dict(new.timeouts)["build"] == 20
    assert dict(new.timeouts)["install"] > 0


def test_settings_without_overrides_are_those_of_the_matrix() -> None:
    matrix = Matrix(name="m", target="cpu", axes={"torch": ("2.13.0",)}, exclude_newer="2026-11-01")
    (cell,) = expand(matrix)
    assert isinstance(cell, Cell)
    found = matrixfile.settings(matrix, cell)
    assert (found.backend, found.exclude_newer, found.env) == ("uv", "2026-11-01", ())


# --- whatever is fed to the loader, only a ConfigurationError comes out ------------------------

TEXT = SHIPPED.read_text(encoding="utf-8")
DOCUMENT = tomllib.loads(TEXT)
WORDS = sorted({word.strip(string.punctuation) for word in TEXT.split()} - {""})

LEAVES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(WORDS),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.sampled_from(
        ["git:main;id", "nightly-3", ">=2", "9" * 400, "\0", "2.13.0", "none", "torch < 2"]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), inner, max_size=4),
    ),
    max_leaves=12,
)


def to_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {to_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    below = [found for key, item in children for found in paths_of(item, (*path, key))]
    return [path, *below]


PATHS = paths_of(DOCUMENT)[1:]


@st.composite
def broken_texts(draw: st.DrawFn) -> str:
    """The shipped file with a few pieces cut out, doubled, or replaced by something else."""
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = draw(
            st.one_of(st.text(max_size=8), st.sampled_from(WORDS), st.just(text[start:end] * 2))
        )
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def broken_documents(draw: st.DrawFn) -> str:
    """The shipped document with one or two values replaced, dropped or given a new neighbour."""
    document = copy.deepcopy(DOCUMENT)
    for _ in range(draw(st.integers(1, 2))):
        *parents, last = draw(st.sampled_from(PATHS))
        table: Any = document
        try:
            for key in parents:
                table = table[key]
            table[last]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
        action = draw(st.sampled_from(["replace", "drop", "add"]))
        if action == "replace" and not isinstance(table, str):
            table[last] = draw(VALUES)
        elif action == "drop" and not isinstance(table, str):
            del table[last]
        elif isinstance(table, dict):
            table[draw(st.sampled_from(WORDS))] = draw(VALUES)
    return "\n".join(f"{json.dumps(key)} = {to_toml(value)}" for key, value in document.items())


@given(
    st.one_of(broken_texts(), broken_documents(), VALUES.map(lambda v: f"matrix = {to_toml(v)}"))
)
@settings(max_examples=300, deadline=None)
def test_a_broken_file_either_loads_or_is_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "matrix.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    matrices: tuple[Matrix, ...] = ()
    message = ""
    try:
        matrices = matrixfile.load(path).matrices
    except ConfigurationError as error:
        message = str(error)
    assert bool(matrices) is not message.startswith("matrix.toml: ")
    assert all(letter.isprintable() or letter == "\n" for letter in message)
    for matrix in matrices:
        for cell in itertools.islice(expand(matrix), 50):
            assert cell.id.startswith(matrix.target.replace("_", ""))
            matrixfile.settings(matrix, cell)


def test_a_mark_before_the_text_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text("\ufeff" + SMALL, encoding="utf-8")
    assert matrixfile.load(path).named("small").size == 4


def test_a_cell_may_be_excluded_by_its_id(tmp_path: Path) -> None:
    text = with_key("exclude = [{ when = 'id == \"cpu-421934\"', reason = 'flaky machine' }]")
    path = tmp_path / "matrix.toml"
    path.write_text(text, encoding="utf-8")
    assert matrixfile.load(path).named("small").exclude
