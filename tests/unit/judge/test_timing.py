"""What the timed points of a cell claim, and which of them are its speed."""

import judged
import pytest
from judged import cell, point

from pinproof.judge import timing
from pinproof.judge.speed import fastest
from pinproof.judge.verdict import Verdict
from pinproof.matrix.matrixfile import Policy

GOOD = point("torch-cpu-flash")


def claims(*points, policy=None):
    document = judged.throughput(*points)
    return list(timing.claims(document, fastest(cell(), document), policy or Policy()))


@pytest.mark.parametrize(
    ("status", "more", "expected"),
    [
        ("WRONG", {"reason": "the output is off"}, Verdict.UNSAFE),
        ("ERROR", {"reason": "it raised"}, Verdict.UNSAFE),
        ("CRASH", {"reason": "killed", "signal": "SIGSEGV"}, Verdict.CRASH),
        ("HANG", {"reason": "no end"}, Verdict.CRASH),
        ("NOT-RUN", {"reason": "out of memory"}, Verdict.INCONCLUSIVE),
        ("HARNESS-BROKEN", {"reason": "the baseline raised"}, Verdict.HARNESS_BROKEN),
    ],
)
def test_what_happens_while_a_candidate_is_timed_counts_too(status, more, expected):
    ((verdict, reason),) = claims(GOOD, point("kernel", None, status=status, **more))
    assert verdict is expected
    assert reason == f"kernel while timed at prefill: {more.get('signal') or more['reason']}"


def test_a_point_that_is_ambiguous_or_not_supported_claims_nothing():
    others = [point("a", None, status=status) for status in ("AMBIGUOUS", "UNSUPPORTED")]
    assert claims(GOOD, *others) == []


def test_without_a_measured_point_the_throughput_is_unverified():
    nothing = point("torch-cpu-flash", None, status="AMBIGUOUS", reason="no time left")
    assert claims(nothing) == [(Verdict.UNVERIFIED, "throughput: no point could be measured")]
    assert list(timing.claims({}, None, Policy())) == []


def test_a_cell_is_slow_only_where_the_whole_interval_lies_below_the_minimum():
    policy = Policy(min_throughput=1.0)
    surely, maybe = point("torch-cpu-flash", 0.95), point("torch-cpu-flash", 0.995)
    assert claims(surely, policy=policy) == [
        (
            Verdict.SLOW,
            "torch-cpu-flash runs at 0.95 [0.94, 0.96] of the Triton baseline; "
            "the policy asks for 1",
        )
    ]
    assert claims(maybe, policy=policy) == []
    assert claims(surely) == []


def test_the_speed_of_a_cell_is_that_of_what_it_is_about():
    document = judged.throughput(
        point("torch-sdpa-flash", 2.0), point("vllm-fa2", 0.8), point("vllm-fa3", 1.6)
    )
    assert fastest(cell(vllm="0.33.0"), document).candidate == "vllm-fa3"
    assert fastest(cell(), document).candidate == "torch-sdpa-flash"
    assert fastest(cell(flash_attn="2.8.3"), document) is None


def test_the_ratio_is_the_geometric_mean_of_the_measured_points():
    points = (
        point("torch-cpu-flash", 1.0),
        point("torch-cpu-flash", 4.0),
        point("torch-cpu-flash", 2.0, status="AMBIGUOUS"),
        point("torch-cpu-flash", None, status="UNSUPPORTED"),
    )
    assert fastest(cell(), judged.throughput(*points)).ratio == pytest.approx(2.0)
    assert fastest(cell(), judged.throughput(*points[:2])).ratio == pytest.approx(2.0)
