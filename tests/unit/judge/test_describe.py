"""What failing checks share and no passing one has, in words."""

import judged
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.judge.checks import Check
from pinproof.judge.describe import describe, properties


def check(name="x", *features, sq=128, sk=128, **more):
    """A check with these features, and fields of its call."""
    case = {"seqlen_q": sq, "seqlen_k": sk, **more.pop("case", {})}
    return Check.parse(judged.check(name, features=features, case=case, **more))


GOOD = [
    check("a", "bf16"),
    check("b", "fp16", "causal-rectangular", "gqa", sq=113, sk=203, case={"kind": "peaked"}),
    check("c", "bf16", "one-key", sq=5, sk=1),
    check("d", "bf16", "causal-rectangular", sk=217),
]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([check("x", "bf16", "no-keys", sk=0), check("y", "fp16", "no-keys", sk=0)], "Sk = 0"),
        ([check("x", "bf16", "softcap", sk=217, case={"softcap": 15.0})], "softcap"),
        (
            [check("x", "fp16", "causal-rectangular", sq=203, sk=113),
             check("y", "bf16", "causal-rectangular", sq=130, sk=2)],
            "causal with Sq != Sk with Sq > Sk",
        ),
        ([check("x", "bf16", case={"head_dim": 80})], "head dimension 80"),
        (
            [check("x", "no-keys", sk=0), check("y", "alibi", sk=256)],
            "Sk = 0, or ALiBi",
        ),
        ([check("x", "bf16", kind="repeats")], "repeated calls"),
        ([check("P3-views@x", "bf16", kind="identity")], "what P3-views asks"),
    ],
)  # fmt: skip
def test_what_failing_checks_share_and_no_passing_one_has_is_named(bad, expected):
    assert describe(bad, GOOD) == expected


def test_checks_that_nothing_tells_from_a_passing_one_are_named_themselves():
    twin = check("twin", "bf16")
    assert describe([twin], GOOD) == "twin"
    many = [check(f"twin-{number}", "bf16") for number in range(6)]
    assert describe(many, GOOD) == "twin-0, twin-1, twin-2 and 3 more checks"


def test_a_candidate_that_fails_everywhere_is_not_to_be_called_at_all():
    assert describe([check("x", "bf16")], []) == "any arguments"


def test_the_properties_of_a_call_are_its_features_and_the_fields_that_are_not_usual():
    case = {"head_dim": 80, "heads_k": 1, "window": [33, 0], "kind": "peaked", "dtype": "fp16"}
    found = properties(check("x", "fp16", "gqa", "window", sq=203, sk=113, case=case))
    assert found.keys() == {
        "Sq = 203", "Sk = 113", "Sq > Sk", "head dimension 80", "grouped heads", "key heads 1",
        "window", "window 33, 0", "fp16", "peaked inputs",
    }  # fmt: skip


words = st.sets(st.sampled_from(["bf16", "fp16", "causal", "gqa", "softcap", "no-keys", "paged"]))


@given(st.lists(words, min_size=1, max_size=6), st.lists(words, max_size=6))
def test_what_is_named_never_describes_a_passing_check(bad, good):
    failing = [check(f"f{number}", *sorted(found)) for number, found in enumerate(bad)]
    passing = [check(f"p{number}", *sorted(found)) for number, found in enumerate(good)]
    said = describe(failing, passing)
    known = {check.id for check in failing}
    for words in said.split(", or ") if passing else ():
        alone = set(words.split(" with "))
        named = alone <= {word for one in failing for word in properties(one)}
        assert named or any(words.startswith(name) for name in known)
        assert not (named and any(alone <= properties(one).keys() for one in passing))
