"""What not to call though the cell is SAFE, in words that a user can act on."""

import judged
from judged import candidate, check, known

from pinproof.judge import limits
from pinproof.judge.checks import Check, Correctness
from pinproof.judge.limits import grouped
from pinproof.judge.speed import Speed
from pinproof.matrix.matrixfile import Policy

OUTSIDE = ("everything",)


def told(*checks, policy=None, speed=None, **more):
    found = Correctness.parse(judged.correctness(candidate("kernel", *checks, **more)))
    return list(limits.limits(found, speed, policy or Policy()))


def test_a_failure_outside_the_asked_uses_is_a_limit_and_inside_it_is_none():
    crashes = [
        check(name, "CRASH", uses=OUTSIDE, signal="SIGFPE", z=None, features=("no-keys",))
        for name in ("b", "c")
    ]
    assert told(check("a"), *crashes) == ["kernel: do not call with Sk = 0 (SIGFPE)"]
    assert told(check("a"), *crashes, policy=Policy(uses=("everything",))) == []


def test_less_precision_is_advice_of_its_own_and_so_is_what_was_not_checked():
    long = {"features": (*judged.EASY, "far"), "uses": OUTSIDE}
    degraded = check("b", "DEGRADED", "RMS 1.6 > 1.5", uses=OUTSIDE, features=("softcap",))
    found = told(check("a"), degraded, check("c", "NOT-RUN", "out of memory", **long))
    assert found == [
        "kernel: expect less precision with softcap (RMS 1.6 > 1.5)",
        "kernel: was not checked with tensors beyond 2^31 elements (out of memory)",
    ]


def test_a_known_defect_that_shows_is_a_limit_in_its_own_words_once():
    crash = check("b", "CRASH", uses=OUTSIDE, signal="SIGFPE", features=("no-keys",), defect="d")
    found = told(check("a"), crash, defects=[known("d", shown=("b",)), known("e", passed=["a"])])
    assert found == [
        "kernel: do not call with Sk = 0: the process dies (known defect d, somewhere#1)"
    ]


def test_a_convention_that_passes_is_a_limit_too():
    found = told(check("a", defect="d"), defects=[known("d", shown=("a",))])
    assert len(found) == 1


def test_a_candidate_that_says_what_it_supports_is_quoted_feature_by_feature():
    refused = [
        check("b", "UNSUPPORTED", features=("bf16", "window")),
        check("c", "UNSUPPORTED", features=("bf16", "causal-rectangular", "softcap")),
    ]
    assert told(check("a"), *refused) == ["kernel: refuses causal with Sq != Sk, softcap, window"]


def test_what_a_candidate_refuses_though_it_says_it_supports_it_is_described():
    wide = check("b", "UNSUPPORTED", case={"head_dim": 192})
    assert told(check("a"), wide) == ["kernel: refuses head dimension 192"]


def test_a_speed_that_may_be_below_the_asked_is_a_limit():
    speed = Speed(candidate="kernel", ratio=0.99, low=0.98, high=1.0)
    assert told(check("a"), speed=speed, policy=Policy(min_throughput=1.0)) == [
        "kernel: 0.99 [0.98, 1.00] may be below the asked 1"
    ]
    assert told(check("a"), speed=speed, policy=Policy(min_throughput=0.5)) == []


def test_failures_are_grouped_by_kind_and_defect_the_worst_first():
    checks = [
        judged.check("a", "DEGRADED"),
        judged.check("b"),
        judged.check("c", "CRASH", signal="SIGSEGV"),
        judged.check("d", "CRASH", signal="SIGFPE"),
        judged.check("e", "CRASH", signal="SIGSEGV"),
        judged.check("f", "CRASH", signal="SIGSEGV", defect="known"),
    ]
    shown = [[check.id for check in group] for group in grouped(map(Check.parse, checks))]
    assert shown == [["d"], ["c", "e"], ["f"], ["a"]]


def test_what_a_build_left_out_is_told_as_that_and_not_as_a_refusal():
    left_out = check("b", "UNSUPPORTED", features=("bf16", "window"), absent=["local"])
    assert told(check("a"), left_out) == ["kernel: was built without local, and refuses that"]
