"""What the evidence and the policy together say of a cell."""

import math

import judged
import pytest
from judged import case, cell, point, record, whole

from pinproof.errors import ExitCode
from pinproof.evidence.evidence import Outcome
from pinproof.judge.verdict import PRECEDENCE, Judgement, Verdict, exit_code, judge
from pinproof.matrix.matrixfile import Policy
from pinproof.plan.stage import Stage

SERVING = Policy()
CELL = cell()


def verdict(evidence, *, policy=SERVING, of=CELL, **more):
    return judge(of, evidence, policy, **more).verdict


def test_a_cell_whose_every_check_passes_is_safe_and_shows_its_numbers():
    said = judge(CELL, whole(case(judged.EASY, z=1.5), case("b", z=3.25)), SERVING)
    assert said.verdict is Verdict.SAFE
    assert said.reason == "2 of 2 cases pass (torch-cpu-flash)"
    assert said.limits == ()
    assert said.worst_z == 3.25
    assert said.ratio == pytest.approx(1.2)
    assert (said.low, said.high) == (pytest.approx(1.188), pytest.approx(1.212))
    assert said.fastest == "torch-cpu-flash"
    assert said.seconds == 10.0
    assert said.ran


def test_an_excluded_cell_names_its_rule_and_needs_no_evidence():
    said = judge(cell(excluded="no such wheel"), {}, SERVING)
    assert (said.verdict, said.reason) == (Verdict.EXCLUDED, "a-rule: no such wheel")


@pytest.mark.parametrize(
    ("stage", "outcome", "expected"),
    [
        (Stage.RESOLVE, Outcome.FAILED, Verdict.UNBUILDABLE),
        (Stage.BUILD, Outcome.FAILED, Verdict.UNBUILDABLE),
        (Stage.BUILD, Outcome.TIMEOUT, Verdict.INCONCLUSIVE),
        (Stage.BUILD, Outcome.CRASHED, Verdict.INCONCLUSIVE),
        (Stage.INSTALL, Outcome.FAILED, Verdict.UNBUILDABLE),
        (Stage.INSTALL, Outcome.INFRA, Verdict.INCONCLUSIVE),
        (Stage.INSPECT, Outcome.CRASHED, Verdict.IMPORT_FAIL),
        (Stage.INSPECT, Outcome.FAILED, Verdict.HARNESS_BROKEN),
        (Stage.CORRECTNESS, Outcome.CRASHED, Verdict.CRASH),
        (Stage.CORRECTNESS, Outcome.FAILED, Verdict.HARNESS_BROKEN),
        (Stage.CORRECTNESS, Outcome.TIMEOUT, Verdict.INCONCLUSIVE),
        (Stage.THROUGHPUT, Outcome.CANCELLED, Verdict.INCONCLUSIVE),
    ],
)
def test_the_end_of_a_stage_gives_the_verdict_and_its_reason(stage, outcome, expected):
    evidence = {earlier: record(earlier) for earlier in Stage if earlier.position < stage.position}
    evidence[stage] = record(stage, outcome=outcome, reason="because")
    said = judge(CELL, evidence, SERVING)
    assert (said.verdict, said.reason) == (expected, f"{stage}: because")


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.OK}))
def test_no_cell_is_safe_unless_every_stage_ended_well(stage, outcome):
    evidence = {**whole(), stage: record(stage, outcome=outcome, reason="because")}
    assert verdict(evidence) is not Verdict.SAFE


@pytest.mark.parametrize("stage", [Stage.INSPECT, Stage.CORRECTNESS, Stage.THROUGHPUT])
def test_a_check_that_did_not_run_is_never_a_pass(stage):
    evidence = whole()
    del evidence[stage]
    said = judge(CELL, evidence, SERVING)
    assert (said.verdict, said.reason) == (Verdict.UNVERIFIED, f"{stage} did not run")


def test_a_check_that_the_matrix_does_not_ask_for_may_be_missing():
    evidence = whole()
    del evidence[Stage.THROUGHPUT]
    assert verdict(evidence, checks=["correctness"]) is Verdict.SAFE
    fast = Policy(min_throughput=0.5)
    assert verdict(evidence, checks=["correctness"], policy=fast) is Verdict.UNVERIFIED


def test_a_stage_that_cannot_run_here_leaves_the_cell_unverified_with_the_machines_reason():
    evidence = whole()
    evidence[Stage.CORRECTNESS] = record(
        Stage.CORRECTNESS, outcome=Outcome.UNAVAILABLE, reason="needs sm_120"
    )
    del evidence[Stage.THROUGHPUT]
    said = judge(CELL, evidence, SERVING)
    assert (said.verdict, said.reason) == (Verdict.UNVERIFIED, "correctness: needs sm_120")
    assert not said.ran


@pytest.mark.parametrize(
    ("status", "signal", "expected"),
    [
        ("CRASH", "SIGSEGV", Verdict.CRASH),
        ("CRASH", "SIGKILL", Verdict.INCONCLUSIVE),
        ("HANG", "SIGKILL", Verdict.CRASH),
        ("FAIL", None, Verdict.UNSAFE),
        ("ERROR", None, Verdict.UNSAFE),
        ("FLAKY", None, Verdict.FLAKY),
        ("DEGRADED", None, Verdict.DEGRADED),
        ("UNSUPPORTED", None, Verdict.SAFE),
        ("SOMETHING-NEW", None, Verdict.UNVERIFIED),
    ],
)
def test_one_case_in_an_asked_use_decides(status, signal, expected):
    bad = case("128x217-d64-softcap15-bf16-diffuse", status, signal=signal)
    assert verdict(whole(case("128x128-d64-h4k2-causal-bf16-diffuse"), bad)) is expected


def test_the_reason_says_which_calls_fail_how_and_where_to_look():
    said = judge(
        CELL,
        whole(
            case("128x128-d64-h4k2-causal-bf16-diffuse"),
            case("128x217-d64-causal-softcap15-bf16-peaked", "FAIL", "max|z| 157 > 25", z=157),
            case("128x217-d64-causal-softcap15-fp16-peaked", "FAIL", "max|z| 99 > 25", z=99),
            case("113x203-d64-causal-fp16-peaked"),
        ),
        SERVING,
    )
    assert said.verdict is Verdict.UNSAFE
    assert said.reason == (
        "torch-cpu-flash gives wrong numbers with softcap: max|z| 157 > 25 "
        "(2 of 4 cases, first 128x217-d64-causal-softcap15-bf16-peaked)"
    )
    assert said.worst_z == 157


def test_a_failure_outside_the_asked_uses_is_a_limit_that_a_user_can_act_on():
    crashes = [
        case(f"128x0-d64-{dtype}-diffuse", "CRASH", uses=("everything",), signal="SIGFPE", z=None)
        for dtype in ("bf16", "fp16")
    ]
    evidence = whole(case("128x128-d64-h4k2-causal-bf16-diffuse"), *crashes)
    said = judge(CELL, evidence, SERVING)
    assert said.verdict is Verdict.SAFE
    assert said.limits == ("torch-cpu-flash: do not call with Sk = 0 (SIGFPE)",)
    assert verdict(evidence, policy=Policy(uses=("everything",))) is Verdict.CRASH


def test_what_a_candidate_refuses_is_a_limit_and_no_failure():
    evidence = whole(
        case("128x128-d64-h4k2-causal-bf16-diffuse"),
        case("128x217-d64-softcap15-bf16-diffuse", "UNSUPPORTED", z=None),
        case("97x160-d128-window31.7-bf16-diffuse", "UNSUPPORTED", z=None),
    )
    said = judge(CELL, evidence, SERVING)
    assert said.verdict is Verdict.SAFE
    assert said.limits == ("torch-cpu-flash: refuses softcap, or window",)
    assert said.reason == "1 of 3 cases pass, 2 refused (torch-cpu-flash)"


def test_a_candidate_that_passes_nothing_is_never_safe():
    evidence = whole(case("a", "UNSUPPORTED"), case("b", "UNSUPPORTED"))
    assert verdict(evidence) is Verdict.UNVERIFIED
    outside = whole(case("a", uses=("everything",)))
    assert verdict(outside) is Verdict.UNVERIFIED


def test_a_cell_without_any_candidate_is_never_safe():
    evidence = whole()
    evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, judged.correctness())
    evidence[Stage.INSPECT] = record(Stage.INSPECT, judged.inspect())
    assert verdict(evidence) is Verdict.UNVERIFIED


def test_a_candidate_that_inspect_found_must_have_been_checked():
    evidence = whole()
    found = judged.inspect("torch-cpu-flash", "sdpa-flash")
    evidence[Stage.INSPECT] = record(Stage.INSPECT, found)
    said = judge(CELL, evidence, SERVING)
    assert said.verdict is Verdict.UNVERIFIED
    assert "sdpa-flash" in said.reason


def test_a_candidate_that_is_not_available_here_does_not_count():
    evidence = whole()
    document = judged.correctness(torch_cpu_flash=[case(judged.EASY)], sdpa_cudnn=[])
    document["candidates"][1] |= {"available": False, "reason": "no cuDNN"}
    evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, document)
    assert verdict(evidence) is Verdict.SAFE


def test_every_candidate_that_the_pin_carries_counts():
    evidence = whole()
    document = judged.correctness(vllm_fa2=[case("a")], sdpa_flash=[case("a"), case("b", "FAIL")])
    evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, document)
    said = judge(CELL, evidence, SERVING)
    assert said.verdict is Verdict.UNSAFE
    assert said.reason.startswith("sdpa-flash ")


def test_an_import_that_the_axes_ask_for_must_work():
    broken = {"module": "vllm", "ok": False, "error": "undefined symbol: _ZN3c10", "seconds": 1}
    evidence = whole()
    evidence[Stage.INSPECT] = record(Stage.INSPECT, judged.inspect("a", imports=[broken]))
    said = judge(cell(vllm="0.33.0"), evidence, SERVING)
    assert said.verdict is Verdict.IMPORT_FAIL
    assert said.reason == "import vllm: undefined symbol: _ZN3c10"


def test_an_import_that_lacks_only_the_driver_says_nothing_against_the_combination():
    error = "libcuda.so.1: cannot open shared object file"
    broken = {"module": "vllm", "ok": False, "error": error, "seconds": 1}
    elsewhere = {Stage.INSPECT: record(Stage.INSPECT, judged.inspect("a", imports=[broken]))}
    assert verdict(elsewhere, of=cell(target="sm_120", vllm="0.33.0")) is Verdict.UNVERIFIED
    assert verdict(elsewhere, of=cell(vllm="0.33.0")) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("axis", ["vllm", "flash_attn"])
def test_a_candidate_that_the_axes_ask_for_must_be_there(axis):
    evidence = whole(machine=judged.H100)
    evidence[Stage.INSPECT] = record(
        Stage.INSPECT, judged.inspect("torch-cpu-flash", capability="sm_90")
    )
    asked = cell(target="sm_90", **{axis: "1.0"})
    said = judge(asked, evidence, SERVING)
    assert said.verdict is Verdict.IMPORT_FAIL
    assert said.reason == f"no attention of {axis.replace('_', '-')} can be called: it is not there"
    assert verdict(evidence, of=cell(target="sm_90", **{axis: "none"})) is Verdict.SAFE


def test_nothing_is_said_for_or_against_a_cell_by_numbers_from_a_broken_harness():
    evidence = whole()
    for cases in ([case("a")], [case("a"), case("b", "FAIL", "max|z| 90 > 25", z=90)]):
        document = judged.correctness("FAIL", torch_cpu_flash=cases)
        evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, document)
        said = judge(CELL, evidence, SERVING)
        assert said.verdict is Verdict.HARNESS_BROKEN
        assert "128x128-d64: max|z| 90 > 25" in said.reason
        assert said.worst_z is None
        assert said.limits == ()


def test_a_harness_that_was_compared_in_no_case_proves_nothing():
    evidence = whole()
    document = judged.correctness(torch_cpu_flash=[case("a")])
    document["harness"]["cases"] = 0
    evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, document)
    assert verdict(evidence) is Verdict.HARNESS_BROKEN


def test_a_crash_is_a_fact_even_where_the_harness_is_broken():
    evidence = whole()
    document = judged.correctness("FAIL", torch_cpu_flash=[case("a", "CRASH", signal="SIGSEGV")])
    evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, document)
    assert verdict(evidence) is Verdict.CRASH


def test_wrong_numbers_stand_though_the_machine_failed_later():
    evidence = whole(case("a"), case("b", "FAIL"))
    evidence[Stage.THROUGHPUT] = record(Stage.THROUGHPUT, outcome=Outcome.INFRA, reason="disk")
    assert verdict(evidence) is Verdict.UNSAFE


def test_a_cell_is_slow_only_where_the_whole_interval_lies_below_the_minimum():
    policy = Policy(min_throughput=1.0)
    surely = whole(points=(point("torch-cpu-flash", 0.95, half=0.01),))
    maybe = whole(points=(point("torch-cpu-flash", 0.995, half=0.01),))
    said = judge(CELL, surely, policy)
    assert said.verdict is Verdict.SLOW
    assert said.reason == (
        "torch-cpu-flash runs at 0.95 [0.94, 0.96] of the Triton baseline; the policy asks for 1"
    )
    said = judge(CELL, maybe, policy)
    assert said.verdict is Verdict.SAFE
    assert said.limits == ("torch-cpu-flash: 0.99 [0.99, 1.00] may be below the asked 1",)
    assert verdict(surely) is Verdict.SAFE


def test_the_speed_of_a_cell_is_that_of_what_it_is_about():
    points = (point("sdpa-flash", 2.0), point("vllm-fa2", 0.8), point("vllm-fa3", 1.6))
    evidence = whole(points=points)
    evidence[Stage.INSPECT] = record(Stage.INSPECT, judged.inspect("torch-cpu-flash", "vllm-fa2"))
    assert judge(cell(vllm="0.33.0"), evidence, SERVING).fastest == "vllm-fa3"
    assert judge(CELL, evidence, SERVING).fastest == "sdpa-flash"
    assert judge(cell(flash_attn="2.8.3"), evidence, SERVING).ratio is None


def test_the_ratio_is_the_geometric_mean_of_the_measured_points():
    points = (
        point("torch-cpu-flash", 1.0),
        point("torch-cpu-flash", 4.0),
        point("torch-cpu-flash", 2.0, status="AMBIGUOUS"),
        point("torch-cpu-flash", None, status="UNSUPPORTED"),
    )
    assert judge(CELL, whole(points=points), SERVING).ratio == pytest.approx(2.0)
    assert judge(CELL, whole(points=points[:2]), SERVING).ratio == pytest.approx(2.0)


def test_without_a_measured_point_the_throughput_is_unverified():
    nothing = point("torch-cpu-flash", None, status="AMBIGUOUS", reason="no time left")
    said = judge(CELL, whole(points=(nothing,)), SERVING)
    assert said.verdict is Verdict.UNVERIFIED
    assert said.ratio is None


def test_what_happens_while_a_candidate_is_timed_counts_too():
    good = point("torch-cpu-flash")
    wrong = point("torch-cpu-flash", None, status="WRONG", reason="max|z| 90")
    raised = point("torch-cpu-flash", None, status="ERROR", reason="it raised")
    died = point("torch-cpu-flash", None, status="ERROR", reason="died", signal="SIGSEGV")
    killed = point("torch-cpu-flash", None, status="ERROR", reason="killed", signal="SIGKILL")
    assert verdict(whole(points=(good, wrong))) is Verdict.UNSAFE
    assert verdict(whole(points=(good, died))) is Verdict.CRASH
    assert verdict(whole(points=(good, killed))) is Verdict.INCONCLUSIVE
    assert verdict(whole(points=(good, raised))) is Verdict.UNSAFE
    full = point("torch-cpu-flash", None, status="ERROR", reason="CUDA out of memory")
    assert verdict(whole(points=(good, full))) is Verdict.INCONCLUSIVE


def test_numbers_of_another_gpu_prove_nothing():
    elsewhere = whole(machine={**judged.H100, "target": "sm_80"})
    said = judge(cell(target="sm_90"), elsewhere, SERVING)
    assert said.verdict is Verdict.UNVERIFIED
    assert said.reason == "correctness ran on sm_80, not on sm_90"


def test_a_pass_of_easy_cases_alone_is_no_proof():
    refused = case(judged.EASY, "UNSUPPORTED", "it does not admit causal, gqa")
    said = judge(CELL, whole(case("128x128-d64-bf16-diffuse"), refused), SERVING)
    assert said.verdict is Verdict.UNVERIFIED
    assert said.reason == "no candidate passed a case with causal, or grouped heads"


def test_training_is_not_proven_by_the_forward_pass():
    said = judge(CELL, whole(), Policy(uses=("training",)))
    assert said.verdict is Verdict.UNVERIFIED
    assert "backward" in said.reason


def test_without_correctness_nothing_is_safe_whatever_the_matrix_asks_for():
    evidence = {stage: e for stage, e in whole().items() if stage is not Stage.CORRECTNESS}
    assert verdict(evidence, checks=("throughput",)) is Verdict.UNVERIFIED


def test_a_candidate_that_crashed_and_then_hid_is_still_a_crash():
    evidence = whole()
    crashed = case(judged.EASY, "CRASH", signal="SIGSEGV")
    hidden = {"name": "vllm-fa3", "available": False, "reason": "x", "cases": [crashed]}
    correct = evidence[Stage.CORRECTNESS].data
    correct["candidates"].append(hidden)
    assert verdict(evidence) is Verdict.CRASH


def test_a_kernel_that_cannot_be_loaded_beside_a_good_one_fails_the_import():
    inspected = judged.inspect("vllm-fa2", capability="sm_90")
    why = "undefined symbol: _ZN3c10"
    inspected["candidates"].append({"name": "vllm-fa3", "available": False, "reason": why})
    evidence = whole(machine=judged.H100)
    evidence[Stage.INSPECT] = record(Stage.INSPECT, inspected)
    said = judge(cell(target="sm_90", vllm="0.24.0"), evidence, SERVING)
    assert (said.verdict, said.reason) == (Verdict.IMPORT_FAIL, f"vllm-fa3: {why}")


@pytest.mark.parametrize("z", [math.inf, math.nan])
def test_a_z_that_is_no_number_is_the_worst_there_is(z):
    assert judge(CELL, whole(case("a", z=2.0), case("b", "FAIL", z=z)), SERVING).worst_z == math.inf


def test_every_verdict_has_its_place():
    assert sorted(PRECEDENCE) == sorted(Verdict)
    worst_to_best = list(Verdict)[: list(Verdict).index(Verdict.SAFE) + 1]
    assert [each for each in PRECEDENCE if each in worst_to_best] == worst_to_best


def test_no_verdict_is_both_against_the_combination_and_against_the_machine():
    for each in Verdict:
        assert not (each.is_bad and each.is_infrastructure)
    assert not Verdict.SAFE.is_bad


def said(word, *, ran=True):
    return Judgement(verdict=Verdict(word), reason="because", ran=ran)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["SAFE"], ExitCode.OK),
        (["SAFE", "EXCLUDED"], ExitCode.OK),
        ([], ExitCode.NOTHING_RAN),
        (["EXCLUDED"], ExitCode.NOTHING_RAN),
        (["SAFE", "UNSAFE"], ExitCode.UNSAFE),
        (["SAFE", "UNBUILDABLE"], ExitCode.UNSAFE),
        (["SAFE", "SLOW"], ExitCode.UNSAFE),
        (["SAFE", "INCONCLUSIVE"], ExitCode.INFRASTRUCTURE),
        (["HARNESS-BROKEN"], ExitCode.INFRASTRUCTURE),
        (["CRASH", "INCONCLUSIVE"], ExitCode.UNSAFE),
        (["UNVERIFIED", "INCONCLUSIVE"], ExitCode.INFRASTRUCTURE),
        (["SAFE", "UNVERIFIED"], ExitCode.UNSAFE),
    ],
)
def test_the_exit_code_is_that_of_the_worst_required_cell(words, expected):
    judgements = {str(number): said(word) for number, word in enumerate(words)}
    assert exit_code(judgements, judgements.keys()) is expected


def test_only_required_cells_decide_the_exit_code():
    judgements = {"a": said("SAFE"), "b": said("UNSAFE")}
    assert exit_code(judgements, ["a"]) is ExitCode.OK
    assert exit_code(judgements, []) is ExitCode.NOTHING_RAN


def test_a_run_in_which_no_cell_ran_has_its_own_exit_code():
    judgements = {"a": said("UNVERIFIED", ran=False), "b": said("UNVERIFIED", ran=False)}
    assert exit_code(judgements, judgements.keys()) is ExitCode.NOTHING_RAN
    judgements["c"] = said("SAFE")
    assert exit_code(judgements, judgements.keys()) is ExitCode.UNSAFE
