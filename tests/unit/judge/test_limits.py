"""Which calls a candidate fails, in words that a user can act on."""

import pytest

from pinproof.judge import limits
from pinproof.judge.limits import describe, features, grouped
from pinproof.matrix.matrixfile import Policy

GOOD = [
    "128x128-d64-bf16-diffuse",
    "113x203-d64-h4k2-causal-fp16-peaked",
    "5x1-d64-bf16-peaked",
    "128x217-d64-causal-bf16-peaked",
]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (["128x0-d64-bf16-diffuse", "128x0-d64-fp16-diffuse"], "Sk = 0"),
        (["128x217-d64-causal-softcap15-bf16-peaked"], "softcap"),
        (["203x113-d64-h4k1-causal-fp16-peaked", "130x2-d64-causal-bf16-peaked"],
         "causal with Sq > Sk"),
        (["77x77-d256-causal-fp16-diffuse"], "head dimension 256"),
        (["128x0-d64-bf16-diffuse", "108x256-d64-alibi-bf16-diffuse"], "Sk = 0, or alibi"),
    ],
)  # fmt: skip
def test_what_failing_cases_share_and_no_passing_case_has_is_named(bad, expected):
    assert describe(bad, GOOD) == expected


def test_cases_that_nothing_tells_from_a_passing_one_are_named_themselves():
    twin = "128x128-d64-bf16-diffuse"
    assert describe([twin], GOOD) == twin
    many = [f"128x128-d64-bf16-diffuse{'-' * number}" for number in range(6)]
    assert describe(many, GOOD).endswith("and 3 more cases")


def test_a_candidate_that_fails_everywhere_is_not_to_be_called_at_all():
    assert describe(["128x128-d64-bf16-diffuse"], []) == "any arguments"


def test_the_features_of_a_case_are_read_from_its_id():
    found = features("203x113-d80-h4k1-causal-window33.0-fp16-peaked")
    assert found.keys() == {
        "Sq = 203", "Sk = 113", "Sq > Sk", "head dimension 80", "grouped heads", "4 heads on 1",
        "causal", "window", "window 33.0", "fp16", "peaked inputs",
    }  # fmt: skip


def test_failures_are_grouped_by_kind_the_worst_first():
    cases = [
        {"id": "a", "status": "DEGRADED"},
        {"id": "b", "status": "PASS"},
        {"id": "c", "status": "CRASH", "signal": "SIGSEGV"},
        {"id": "d", "status": "CRASH", "signal": "SIGFPE"},
        {"id": "e", "status": "CRASH", "signal": "SIGSEGV"},
    ]
    shown = [(status, [case["id"] for case in group]) for status, group in grouped(cases)]
    assert shown == [("CRASH", ["d"]), ("CRASH", ["c", "e"]), ("DEGRADED", ["a"])]


def test_a_candidate_that_names_what_it_lacks_is_quoted_feature_by_feature() -> None:
    def refused(case_id: str, what: str) -> dict[str, object]:
        reasons = [f"sdpa does not admit {what}"]
        return {"id": case_id, "status": "UNSUPPORTED", "uses": ["serving"], "reasons": reasons}

    cases = [
        {"id": "128x128-d64-bf16-diffuse", "status": "PASS", "uses": ["serving"]},
        refused("97x160-d128-window31.7-bf16-diffuse", "window"),
        refused("128x217-d64-causal-softcap15-bf16-diffuse", "causal-rectangular, softcap"),
    ]
    document = {"candidates": [{"name": "sdpa", "cases": cases}]}
    assert list(limits.limits(document, {}, None, Policy())) == [
        "sdpa: refuses causal with Sq != Sk, softcap, window"
    ]
