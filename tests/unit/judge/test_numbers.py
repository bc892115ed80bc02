"""What the numbers of the candidates claim."""

import math

import judged
import pytest
from judged import candidate, check, known

from pinproof.judge import numbers
from pinproof.judge.checks import Correctness
from pinproof.judge.verdict import Verdict
from pinproof.matrix.matrixfile import Policy

SERVING = Policy()
NOTHING = judged.inspect()


def claims(*checks, policy=SERVING, inspect=NOTHING, **more):
    found = Correctness.parse(judged.correctness(candidate("kernel", *checks, **more)))
    return list(numbers.claims(found, inspect, policy))


def verdicts(*checks, **more):
    return {verdict for verdict, _ in claims(*checks, **more)}


@pytest.mark.parametrize(
    ("status", "more", "expected"),
    [
        ("CRASH", {"signal": "SIGSEGV"}, Verdict.CRASH),
        ("HANG", {"signal": "SIGKILL"}, Verdict.CRASH),
        ("FAIL", {}, Verdict.UNSAFE),
        ("ERROR", {}, Verdict.UNSAFE),
        ("FLAKY", {}, Verdict.FLAKY),
        ("DEGRADED", {}, Verdict.DEGRADED),
        ("NOT-RUN", {"infra": True}, Verdict.INCONCLUSIVE),
        ("NOT-RUN", {}, Verdict.UNVERIFIED),
        ("SOMETHING-NEW", {}, Verdict.UNVERIFIED),
    ],
)
def test_one_check_in_an_asked_use_decides(status, more, expected):
    assert verdicts(check("a"), check("b", status, **more)) == {expected}


def test_what_a_candidate_refuses_claims_nothing():
    assert claims(check("a"), check("b", "UNSUPPORTED", features=("softcap",))) == []


def test_the_reason_says_which_calls_fail_how_how_many_and_where_to_look():
    softcap = {"features": (*judged.EASY, "softcap")}
    ((verdict, reason),) = claims(
        check("a"),
        check("b", "FAIL", "max|z| 157 > 25", **softcap),
        check("c", "FAIL", "max|z| 99 > 25", **softcap),
        check("d"),
    )
    assert verdict is Verdict.UNSAFE
    assert reason == (
        "kernel gives wrong numbers with softcap: max|z| 157 > 25 (2 of 4 checks, first b)"
    )


def test_a_failure_that_is_a_known_defect_is_named_by_it():
    crash = check("b", "CRASH", signal="SIGFPE", features=("no-keys",), defect="a-defect")
    ((_, reason),) = claims(check("a"), crash, defects=[known(shown=("b",))])
    assert reason == (
        "kernel crashes with Sk = 0: SIGFPE "
        "(1 of 2 checks, first b; known defect a-defect, somewhere#1)"
    )


def test_known_and_unknown_failures_of_a_kind_are_told_apart():
    failing = [check("b", "FAIL", defect="a-defect"), check("c", "FAIL")]
    found = claims(check("a"), *failing, defects=[known(shown=("b",))])
    assert ["known defect" in reason for _, reason in found] == [False, True]


def test_only_checks_of_the_asked_uses_count():
    outside = check("b", "CRASH", uses=("training", "everything"))
    assert verdicts(check("a"), outside) == set()
    assert verdicts(check("a"), outside, policy=Policy(uses=("training",))) == {Verdict.CRASH}


def test_a_candidate_that_passes_nothing_is_never_safe():
    assert verdicts(check("a", "UNSUPPORTED"), check("b", "UNSUPPORTED")) == {Verdict.UNVERIFIED}
    assert verdicts(check("a", uses=("everything",))) == {Verdict.UNVERIFIED}


def test_a_cell_without_any_candidate_is_never_safe():
    found = Correctness.parse(judged.correctness())
    ((verdict, reason),) = numbers.claims(found, NOTHING, SERVING)
    assert (verdict, reason) == (Verdict.UNVERIFIED, "no attention was found to check")


def test_a_candidate_that_inspect_found_must_have_been_checked():
    ((verdict, reason),) = claims(check("a"), inspect=judged.inspect("kernel", "sdpa-flash"))
    assert verdict is Verdict.UNVERIFIED
    assert reason == "sdpa-flash is there and was not checked: no check ran"


def test_a_candidate_that_is_not_available_here_does_not_count():
    hidden = candidate("sdpa-cudnn", available=False, reason="no cuDNN")
    found = Correctness.parse(judged.correctness(candidate("kernel", check("a")), hidden))
    assert list(numbers.claims(found, NOTHING, SERVING)) == []
    assert numbers.proof(found, SERVING) == (Verdict.SAFE, "1 of 1 checks pass (kernel)")


def test_a_candidate_that_crashed_and_then_hid_is_still_a_crash():
    crashed = check("a", "CRASH", signal="SIGSEGV")
    assert Verdict.CRASH in verdicts(crashed, available=False, reason="x")


def test_every_candidate_that_the_pin_carries_counts():
    of_torch = candidate("torch-sdpa-flash", check("a"), check("b", "FAIL"))
    found = Correctness.parse(judged.correctness(candidate("vllm-fa2", check("a")), of_torch))
    ((verdict, reason),) = numbers.claims(found, NOTHING, SERVING)
    assert verdict is Verdict.UNSAFE
    assert reason.startswith("torch-sdpa-flash ")


@pytest.mark.parametrize(
    ("status", "expected"),
    [("PASS", None), ("FAIL", Verdict.HARNESS_BROKEN), ("CRASH", Verdict.HARNESS_BROKEN),
     ("NOT-RUN", Verdict.INCONCLUSIVE)],
)  # fmt: skip
def test_our_own_kernel_must_pass_before_anything_is_said(status, expected):
    found = Correctness.parse(judged.correctness(candidate("a", check("a")), harness=status))
    assert [verdict for verdict, _ in numbers.harness(found)] == ([expected] if expected else [])


def test_a_harness_that_was_compared_in_no_check_proves_nothing():
    document = judged.correctness(candidate("a", check("a")))
    document["harness"]["cases"] = 0
    ((verdict, _),) = numbers.harness(Correctness.parse(document))
    assert verdict is Verdict.HARNESS_BROKEN
    assert list(numbers.harness(Correctness.parse({}))) == []


@pytest.mark.parametrize("z", [math.inf, math.nan])
def test_a_z_that_is_no_number_is_the_worst_there_is(z):
    document = judged.correctness(candidate("a", check("a", z=2.0), check("b", "FAIL", z=z)))
    assert numbers.worst_z(Correctness.parse(document), SERVING) == math.inf


def test_the_worst_z_is_that_of_the_asked_uses_also_of_gradients():
    gradients = check("b", z=None, uses=("training",), stats={"dk_max_z": 7.0, "dk_rms": 99.0})
    found = Correctness.parse(judged.correctness(candidate("a", check("a", z=2.0), gradients)))
    assert numbers.worst_z(found, SERVING) == 2.0
    assert numbers.worst_z(found, Policy(uses=("serving", "training"))) == 7.0


def test_the_summary_counts_what_passed_and_what_was_refused():
    checks = [check("a"), check("b", "UNSUPPORTED"), check("c", uses=("everything",))]
    found = Correctness.parse(judged.correctness(candidate("kernel", *checks)))
    said = "1 of 2 checks pass, 1 refused (kernel)"
    assert numbers.proof(found, SERVING) == (Verdict.SAFE, said)
