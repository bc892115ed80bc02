"""What the host may ask of a cell, and how a wrong request is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof_cell.request import BadRequestError, Request

GOOD = {
    "schema": 1,
    "cell": "cpu-3f9a1c",
    "target": "cpu",
    "axes": {"torch": "2.13.0", "flash-attn": "none", "vllm": "0.24.0"},
    "uses": ["serving"],
    "suite_dir": "tests/attention",
    "seed": 0,
    "candidates": ["vllm-fa2", "mine.py:attention"],
    "without": {"flash-attn": ["backward", "dropout"]},
}


def test_a_request_survives_the_way_through_json():
    request = Request.parse(json.loads(json.dumps(GOOD)))
    assert Request.parse(json.loads(json.dumps(request.document()))) == request
    assert request.uses == ("serving",)


def test_only_an_axis_with_a_package_of_its_own_is_asked_for():
    request = Request.parse(GOOD)
    assert request.asks_for("vllm")
    assert not request.asks_for("flash-attn")
    assert not request.asks_for("triton")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"sede": 1}, "unknown key 'sede'; did you mean 'seed'?"),
        ({"axes": ["torch"]}, "axes is"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"budget": 0}, "budget is 0"),
        ({"uses": "serving"}, "uses is 'serving'"),
        ({"without": {"flash-attn": "dropout"}}, "without is"),
        ({"target": ""}, "target is ''"),
    ],
)
def test_a_wrong_value_is_refused_with_the_key_at_fault(change, said):
    with pytest.raises(BadRequestError) as caught:
        Request.parse({**GOOD, **change})
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["cell", "target", "axes"])
def test_a_request_without_what_every_stage_needs_is_refused(key):
    with pytest.raises(BadRequestError, match=f"{key} is missing"):
        Request.parse({name: value for name, value in GOOD.items() if name != key})


def test_a_file_that_is_not_there_and_one_that_is_no_json_are_refused(tmp_path):
    with pytest.raises(BadRequestError, match="cannot read"):
        Request.load(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(BadRequestError, match="not JSON"):
        Request.load(tmp_path / "bytes.json")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def outcome(document: object) -> Request | BadRequestError:
    try:
        return Request.parse(document)
    except BadRequestError as error:
        return error


@given(values | st.dictionaries(st.sampled_from([*GOOD, "budget", "other"]), values))
def test_no_document_ends_in_anything_but_a_request_or_one_line(document):
    if isinstance(document, dict):
        document = {"schema": 1, **document}
    found = outcome(document)
    if isinstance(found, BadRequestError):
        assert "\n" not in str(found)
    else:
        assert outcome(found.document()) == found
