"""Whether the environment is the combination that the axes ask for."""

import re

import judged
import pytest
from judged import cell, whole

from pinproof.judge import combination
from pinproof.judge.judgement import judge
from pinproof.judge.verdict import Verdict
from pinproof.matrix.matrixfile import Policy


def seen(torch="2.13.0", cuda=None, python="3.11.7", **packages):
    packages = {name.replace("_", "-"): version for name, version in packages.items()}
    build = {"version": torch, "cuda": cuda}
    return judged.inspect("a", python=python, torch=build, packages={"torch": torch, **packages})


def told(inspect, **axes):
    found = list(combination.claims(cell(**axes), inspect))
    assert all(verdict is Verdict.IMPORT_FAIL for verdict, _ in found)
    return [reason for _, reason in found]


def test_a_torch_without_the_cuda_that_was_asked_for_is_never_safe():
    asked = cell(cuda="13.0")
    evidence = whole(inspect=seen("2.13.0+cpu", None))
    said = judge(asked, evidence, Policy())
    assert said.verdict is Verdict.IMPORT_FAIL
    assert said.reason == "the cell asks for cuda 13.0, and its environment has none"


@pytest.mark.parametrize(
    ("axes", "has", "expected"),
    [
        ({"torch": "2.14.0"}, {"torch": "2.13.0+cpu"}, "torch 2.14.0, .* has 2.13.0\\+cpu"),
        ({"torch": "2.13.0+cu130"}, {"torch": "2.13.0+cu128"}, "torch .* has 2.13.0\\+cu128"),
        ({"torch": ">=2.13"}, {"torch": "2.12.1"}, "torch >=2.13, .* has 2.12.1"),
        ({"torch": "nightly"}, {"torch": "2.15.0"}, "torch nightly, .* has 2.15.0"),
        ({"cuda": "13.0"}, {"cuda": "12.8"}, "cuda 13.0, .* has 12.8"),
        ({"torch": "installed", "cuda": "13.0"}, {"cuda": "12.8"}, "cuda 13.0, .* has 12.8"),
        ({"triton": "3.7.1"}, {"triton": "3.6.0"}, "triton 3.7.1, .* has 3.6.0"),
        ({"flash_attn": "2.8.3"}, {"flash_attn": "2.8.2"}, "flash-attn 2.8.3, .* has 2.8.2"),
        ({"flash_attn": "git:main"}, {}, "flash-attn git:main, .* has none"),
        ({"vllm": "0.33.0"}, {"vllm": "0.28.0"}, "vllm 0.33.0, .* has 0.28.0"),
        ({"vllm": "0.33.0"}, {}, "vllm 0.33.0, .* has none"),
        ({"python": "3.12"}, {}, "python 3.12, .* has 3.11.7"),
    ],
)
def test_another_version_than_the_axis_asks_for_is_told_with_what_is_there(axes, has, expected):
    (reason,) = told(seen(**has), **axes)
    assert re.search(expected, reason)


@pytest.mark.parametrize(
    ("axes", "has"),
    [
        ({"torch": "2.13"}, {"torch": "2.13.0+cu130"}),
        ({"torch": "2.13.0+cu130", "cuda": "13.0"}, {"torch": "2.13.0+cu130", "cuda": "13.0"}),
        ({"torch": "nightly"}, {"torch": "2.15.0.dev20261001+cu130"}),
        ({"torch": ">=2.13,<2.15"}, {"torch": "2.14.1"}),
        # The machine's own torch: the axis names the toolkit, of which the major version counts.
        ({"torch": "installed", "cuda": "13.2"}, {"torch": "2.11.0", "cuda": "13.0"}),
        ({"triton": "bundled", "vllm": "none", "cuda": "none"}, {}),
        ({"flash_attn": "git:main"}, {"flash_attn": "2.9.0"}),
        ({"flash_attn": "2.8.3"}, {"flash_attn": "2.8.3+cu130torch2.13"}),
        ({"python": "3.11.2"}, {}),
    ],
)
def test_what_the_axes_ask_for_claims_nothing(axes, has):
    assert told(seen(**has), **axes) == []


def test_of_a_torch_that_cannot_be_imported_no_cuda_is_claimed():
    broken = {"module": "torch", "ok": False, "error": "no libcudart", "seconds": 1}
    assert told({**seen(), "imports": [broken]}, cuda="13.0") == []


def test_an_inspection_that_did_not_end_claims_nothing():
    assert told({}, cuda="13.0") == []
