"""Expansion into cells, their ids, and the selection among them."""

from __future__ import annotations

import ast
import collections
import dataclasses
import re
import tracemalloc

import pytest

from pinproof.errors import ConfigurationError
from pinproof.matrix import cell as cells
from pinproof.matrix.cell import Cell, Exclusion, expand, matches, select
from pinproof.matrix.matrixfile import Exclude, Matrix

MATRIX = Matrix(
    name="small",
    target="sm_120",
    axes={
        "vllm": ("none", "0.24.0"),
        "torch": ("2.8.0", "2.11.0"),
        "triton": ("bundled",),
    },
)


def id_of(target: str, **axes: str) -> str:
    named = {name.replace("_", "-"): (text,) for name, text in axes.items()}
    (cell,) = expand(Matrix(name="one", target=target, axes=named))
    return cell.id


def test_the_product_is_listed_in_the_canonical_order_of_axes() -> None:
    assert [cell.axes for cell in expand(MATRIX)] == [
        (("torch", "2.8.0"), ("triton", "bundled"), ("vllm", "none")),
        (("torch", "2.8.0"), ("triton", "bundled"), ("vllm", "0.24.0")),
        (("torch", "2.11.0"), ("triton", "bundled"), ("vllm", "none")),
        (("torch", "2.11.0"), ("triton", "bundled"), ("vllm", "0.24.0")),
    ]


def test_zip_groups_move_together_across_the_canonical_order() -> None:
    matrix = Matrix(
        name="zipped",
        target="sm_120",
        axes={
            "torch": ("2.8.0", "2.11.0"),
            "flash-attn": ("none", "2.8.3"),
            "vllm": ("0.11.0", "0.24.0"),
        },
        zip=(("torch", "vllm"),),
    )
    assert [tuple(text for _, text in cell.axes) for cell in expand(matrix)] == [
        ("2.8.0", "none", "0.11.0"),
        ("2.8.0", "2.8.3", "0.11.0"),
        ("2.11.0", "none", "0.24.0"),
        ("2.11.0", "2.8.3", "0.24.0"),
    ]


def test_included_combinations_come_after_the_product_with_their_own_axes() -> None:
    matrix = dataclasses.replace(MATRIX, include=({"torch": "2.13.0", "python": "3.12"},))
    *_, last = expand(matrix)
    assert last.axes == (("python", "3.12"), ("torch", "2.13.0"))


def test_an_excluded_cell_is_yielded_with_its_rule() -> None:
    found = {cell.label: cell.exclusion for cell in expand(MATRIX)}
    excluded = found["torch 2.8.0 · triton bundled · vllm 0.24.0"]
    assert excluded is not None
    assert excluded.rule == "vllm-torch-pin"
    assert found["torch 2.11.0 · triton bundled · vllm 0.24.0"] is None


def test_an_exclude_of_the_matrix_is_named_after_the_rules() -> None:
    matrix = dataclasses.replace(
        MATRIX, exclude=(Exclude(when='torch == "2.8.0"', reason="too old"),)
    )
    rules = [cell.exclusion.rule if cell.exclusion else None for cell in expand(matrix)]
    assert rules == ["exclude", "vllm-torch-pin", None, None]
    first = next(expand(matrix)).exclusion
    assert first == Exclusion(rule="exclude", reason="too old", source='[[matrix]] "small"')


def test_an_exclude_may_name_one_id() -> None:
    unwanted = next(expand(MATRIX)).id
    matrix = dataclasses.replace(
        MATRIX, exclude=(Exclude(when=f'id == "{unwanted}"', reason="seen to hang"),)
    )
    first, *others = expand(matrix)
    assert first.exclusion is not None
    assert first.exclusion.reason == "seen to hang"
    assert all(cell.exclusion is None or cell.exclusion.rule != "exclude" for cell in others)


def test_included_combinations_are_under_the_rules_too() -> None:
    matrix = Matrix(name="m", target="sm_120", include=({"torch": "2.6.0"},))
    (cell,) = expand(matrix)
    assert cell.exclusion is not None


def test_what_is_remembered_of_rules_does_not_change_what_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remembering = list(expand(MATRIX))
    monkeypatch.setattr(cells, "REMEMBERED", 0)
    assert list(expand(MATRIX)) == remembering


def test_an_id_is_the_target_and_six_digits() -> None:
    for cell in expand(MATRIX):
        assert re.fullmatch(r"sm120-[0-9a-f]{6}", cell.id)


def test_no_two_ids_are_one_expression_since_nox_would_run_both_for_either() -> None:
    versions = tuple(f"2.{number}" for number in range(4000))
    ids = {cell.id for cell in expand(Matrix(name="m", target="cpu", axes={"torch": versions}))}
    assert len({_as_nox_reads(each) for each in ids}) == len(ids) > 3990


def test_cells_that_would_share_an_id_have_longer_ones_and_no_other_cell_another_one() -> None:
    versions = tuple(f"{number}.0" for number in range(3, 103))
    axes = {"torch": versions, "vllm": versions}
    matrix = Matrix(name="big", target="sm_90", axes=axes, limit=10_000)
    cells = list(expand(matrix))
    longer = [cell for cell in cells if len(cell.id) > len("sm90-123456")]
    assert len({cell.id for cell in cells}) == len(cells)
    assert longer
    short = collections.Counter(cell.id[:11] for cell in cells)
    assert {cell.id[:11] for cell in longer} == {each for each, count in short.items() if count > 1}
    for cell in (*cells[:5], *longer):
        alone = id_of("sm_90", **dict(cell.axes))
        assert cell.id.startswith(alone) or "g" in cell.id
    reverse = {name: values[::-1] for name, values in axes.items()}
    assert {cell.id for cell in expand(dataclasses.replace(matrix, axes=reverse))} == {
        cell.id for cell in cells
    }
    (chosen,) = select(cells, f"id == '{longer[0].id}'")
    assert chosen == longer[0]


def _as_nox_reads(name: str) -> str:
    try:
        return ast.dump(ast.parse(name))
    except SyntaxError:
        return name


def test_ids_stay_what_they_are_from_release_to_release() -> None:
    """Evidence is kept under them: when this fails, all stored evidence is lost."""
    assert id_of("cpu", torch="2.13.0", triton="3.6.0") == "cpu-421934"
    assert id_of("sm_90", torch="2.11.0", vllm="0.24.0") == "sm90-79a90d"


def test_the_same_combination_has_the_same_id_in_any_matrix_however_written() -> None:
    written = id_of("sm_120", torch="2.13.0", vllm="none", triton="bundled")
    assert written == id_of("sm_120", torch="2.13")
    assert written != id_of("sm_90", torch="2.13.0")
    assert written != id_of("sm_120", torch="2.13.0", python="3.12")
    assert written != id_of("sm_120", torch="2.13.0+cu130")


def test_more_cells_than_the_limit_are_refused_before_the_first() -> None:
    with pytest.raises(ConfigurationError, match="has 4 combinations; the limit is 3"):
        expand(MATRIX, limit=3)
    with pytest.raises(ConfigurationError, match="limit is 2"):
        expand(dataclasses.replace(MATRIX, limit=2))


def test_memory_stays_flat_however_many_cells_there_are() -> None:
    versions = tuple(f"2.8.{patch}" for patch in range(100))
    axes = {"torch": versions, "triton": versions, "vllm": ("none", "0.24.0", "git:main")}
    matrix = Matrix(name="big", target="sm_120", axes=axes, limit=30_000)
    many = expand(matrix)
    for _ in range(1000):
        next(many)
    tracemalloc.start()
    try:
        count = sum(1 for _ in many)
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 29_000
    assert grown < 8e6  # what rules said of 10,000 pairs; 29,000 cells would be 15 MB


def test_an_axis_that_the_cell_does_not_name_has_the_default() -> None:
    cell = next(expand(MATRIX))
    assert cell.axis("torch") == "2.8.0"
    assert cell.axis("flash-attn") == "none"
    assert cell.axis("python", "3.12") == "3.12"


def test_a_label_names_what_is_there_and_shortens_commits() -> None:
    sha = "1234567890abcdef1234567890abcdef12345678"
    axes = (("torch", "2.13.0"), ("flash-attn", "none"), ("vllm", f"git:{sha}"))
    cell = Cell(id="x", matrix="m", target="cpu", axes=axes)
    assert cell.label == "torch 2.13.0 · vllm git:1234567890"


def test_select_takes_the_cells_for_which_the_expression_is_true() -> None:
    chosen = select(expand(MATRIX), 'torch >= "2.11" and vllm != "none"')
    assert [cell.label for cell in chosen] == ["torch 2.11.0 · triton bundled · vllm 0.24.0"]
    assert select(expand(MATRIX), f'id == "{chosen[0].id}"') == chosen
    assert len(select(expand(MATRIX), 'matrix == "small" and target == "sm_120"')) == 4
    assert len(select(expand(MATRIX))) == 4


def test_a_cell_of_which_the_expression_is_unknown_is_not_selected() -> None:
    matrix = Matrix(name="m", target="sm_120", axes={"torch": ("nightly", "2.13.0")})
    nightly, stable = expand(matrix)
    assert not matches(nightly, 'torch < "2.15"')
    assert not matches(nightly, 'torch >= "2.15"')
    assert matches(stable, 'torch < "2.15"')


def test_a_selection_that_matches_nothing_names_values_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="matches none of 4 cells") as caught:
        select(expand(MATRIX), 'torch == "2.9.1"')
    assert caught.value.remedy == "there is torch 2.8.0, 2.11.0"


def test_a_selection_with_an_unknown_name_is_refused_even_where_there_is_nothing_to_select() -> (
    None
):
    with pytest.raises(ConfigurationError, match="Did you mean 'torch'"):
        select([], "torhc == '2.8.0'")
