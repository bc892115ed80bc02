"""What the evidence and the policy together say of a cell, and of a run."""

import judged
import pytest
from judged import candidate, cell, check, known, point, record, whole

from pinproof.errors import ExitCode
from pinproof.evidence.evidence import Outcome
from pinproof.judge import numbers
from pinproof.judge.checks import Correctness
from pinproof.judge.judgement import Judgement, exit_code, judge
from pinproof.judge.verdict import Verdict
from pinproof.matrix.matrixfile import Policy
from pinproof.plan.stage import Stage

SERVING = Policy()
CELL = cell()


def verdict(evidence, *, policy=SERVING, of=CELL, **more):
    return judge(of, evidence, policy, **more).verdict


def test_a_cell_whose_every_check_passes_is_safe_and_shows_its_numbers():
    said = judge(CELL, whole(check("a", z=1.5), check("b", z=3.25)), SERVING)
    assert said.verdict is Verdict.SAFE
    assert said.reason == "2 of 2 checks pass (torch-cpu-flash)"
    assert said.limits == ()
    assert said.defects == ()
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


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage.measures])
def test_a_stage_that_left_no_data_is_never_a_pass(stage):
    said = judge(CELL, {**whole(), stage: record(stage, {})}, SERVING)
    assert said.verdict is Verdict.UNVERIFIED
    assert said.reason == f"{stage} left nothing that it measured"


@pytest.mark.parametrize(
    "nothing",
    [
        judged.correctness(),
        judged.correctness(candidate("torch-cpu-flash")),
        judged.correctness(candidate("torch-cpu-flash", check("a", uses=("training",)))),
        judged.correctness(candidate("torch-cpu-flash", check("a"))) | {"harness": judged.SILENT},
    ],
    ids=["no candidate", "no check", "no check of the asked use", "no harness"],
)
def test_nothing_is_safe_that_no_check_has_spoken_for(nothing):
    evidence = {**whole(), Stage.CORRECTNESS: record(Stage.CORRECTNESS, nothing)}
    assert verdict(evidence) is not Verdict.SAFE
    # The word itself asks for proof, whatever the other claims see.
    claim, _ = numbers.proof(Correctness.parse(nothing), SERVING)
    assert claim is Verdict.UNVERIFIED


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


def test_without_correctness_nothing_is_safe_whatever_the_matrix_asks_for():
    evidence = {stage: e for stage, e in whole().items() if stage is not Stage.CORRECTNESS}
    assert verdict(evidence, checks=("throughput",)) is Verdict.UNVERIFIED


def test_nothing_is_said_for_or_against_a_cell_by_numbers_from_a_broken_harness():
    evidence = whole()
    for checks in ([check("a")], [check("a"), check("b", "FAIL", "max|z| 90 > 25", z=90)]):
        document = judged.correctness(candidate("torch-cpu-flash", *checks), harness="FAIL")
        evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, document)
        said = judge(CELL, evidence, SERVING)
        assert said.verdict is Verdict.HARNESS_BROKEN
        assert "128x128-d64: max|z| 90 > 25" in said.reason
        assert said.worst_z is None
        assert said.limits == said.defects == ()


def test_a_crash_is_a_fact_even_where_the_harness_is_broken():
    evidence = whole()
    crashed = candidate("torch-cpu-flash", check("a", "CRASH", signal="SIGSEGV"))
    document = judged.correctness(crashed, harness="FAIL")
    evidence[Stage.CORRECTNESS] = record(Stage.CORRECTNESS, document)
    assert verdict(evidence) is Verdict.CRASH


def test_wrong_numbers_stand_though_the_machine_failed_later():
    evidence = whole(check("a"), check("b", "FAIL"))
    evidence[Stage.THROUGHPUT] = record(Stage.THROUGHPUT, outcome=Outcome.INFRA, reason="disk")
    assert verdict(evidence) is Verdict.UNSAFE


def test_a_failing_import_a_timed_crash_and_a_missing_cover_each_reach_the_verdict():
    evidence = whole()
    broken = {"module": "torch", "ok": False, "error": "no torch", "seconds": 1}
    failed = {Stage.INSPECT: record(Stage.INSPECT, judged.inspect("a", imports=[broken]))}
    assert verdict({**evidence, **failed}) is Verdict.IMPORT_FAIL
    died = point("torch-cpu-flash", None, status="CRASH", signal="SIGSEGV")
    assert verdict(whole(points=(died,))) is Verdict.CRASH
    assert verdict(whole(check("a", features=("bf16",)))) is Verdict.UNVERIFIED
    elsewhere = whole(machine={**judged.H100, "target": "sm_80"})
    assert verdict(elsewhere, of=cell(target="sm_90")) is Verdict.UNVERIFIED


def test_the_known_defects_that_a_check_spoke_of_are_told_with_their_candidate():
    shown, gone = known("shown", shown=("b",)), known("gone", passed=["a"])
    crash = check("b", "CRASH", uses=("everything",), defect="shown")
    said = judge(CELL, whole(check("a"), crash, defects=(shown, gone)), SERVING)
    assert said.verdict is Verdict.SAFE
    found = [(each.candidate, each.version, each.known.id) for each in said.defects]
    assert found == [("torch-cpu-flash", "1.0", "shown"), ("torch-cpu-flash", "1.0", "gone")]


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
