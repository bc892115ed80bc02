"""Groups: failures of one cause are one group, whatever else their cases have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pinproof_cell.fuzz.groups import Answer, Group, Groups, Signature
from pinproof_cell.suite.cases import Case

PLAIN = Case(1, 2, 8, heads=1, heads_k=1, batch=1)
WRONG = Signature("FAIL", "output", "max_z")
DEAD = Signature("CRASH", "process", "SIGFPE")


def answer(signature: Signature = WRONG) -> Answer:
    finding = {"check": signature.check, "statistic": signature.statistic, "text": "wrong"}
    signal = signature.statistic if signature.check == "process" else None
    return Answer(signature.status, (finding,), signal)


def group(case: Case, signature: Signature = WRONG) -> Group:
    return Group(signature, case, answer(signature), 0, case)


def test_a_failure_that_fails_without_its_other_features_too_has_the_known_cause() -> None:
    groups = Groups()
    softcap = groups.add(group(replace(PLAIN, softcap=30.0)))
    case = Case(90, 90, softcap=5.0, causal=True, alibi=True)
    asked: list[Case] = []

    def ask(simpler: Case) -> Answer:
        asked.append(simpler)
        return answer()

    assert groups.explained(case, answer(), ask) is softcap
    assert [simpler.features for simpler in asked] == [{"bf16", "softcap"}]
    assert asked[0].seqlen_q == 90


def test_a_failure_that_needs_another_feature_has_another_cause() -> None:
    groups = Groups()
    groups.add(group(replace(PLAIN, softcap=30.0)))
    case = Case(90, 90, softcap=5.0, alibi=True)
    assert groups.explained(case, answer(), lambda simpler: Answer("PASS")) is None


@pytest.mark.parametrize(
    "other", [Signature("DEGRADED", "output", "rms"), Signature("FAIL", "lse", "lse_error")]
)
def test_another_status_or_check_is_another_cause(other: Signature) -> None:
    groups = Groups()
    groups.add(group(PLAIN))
    assert groups.explained(Case(90, 90), answer(other), lambda simpler: answer(other)) is None


def test_equal_causes_are_one_group() -> None:
    groups = Groups()
    first = groups.add(group(replace(PLAIN, softcap=30.0)))
    again = group(replace(PLAIN, softcap=5.0, dtype="fp16"), replace(WRONG, statistic="row_rms"))
    assert groups.add(again) is first
    assert (len(groups.all), first.count) == (1, 2)


def test_a_case_with_the_features_that_kill_the_process_is_known_to_be_deadly() -> None:
    groups = Groups()
    deadly = groups.add(group(replace(PLAIN, seqlen_k=0), DEAD))
    groups.add(group(PLAIN, DEAD))
    assert groups.deadly(Case(128, 0, causal=True)) is deadly
    # A death that no feature explains bars nothing, or nothing would be left to ask.
    assert groups.deadly(Case(128, 128)) is None


def test_a_cause_found_late_takes_in_the_groups_that_it_explains() -> None:
    groups = Groups()
    groups.add(group(replace(PLAIN, softcap=30.0, alibi=True)))
    simple = groups.add(group(replace(PLAIN, alibi=True)))
    other = groups.add(group(replace(PLAIN, sinks=True)))
    groups.settle(lambda case: answer())
    assert groups.all == [simple, other]
    assert simple.count == 2


def test_unknown_causes_and_grave_ones_come_first() -> None:
    groups = Groups()
    known = groups.add(group(replace(PLAIN, seqlen_k=0), DEAD))
    known.defect = "torch-cpu-no-keys"
    mild = groups.add(group(PLAIN, Signature("DEGRADED", "output", "rms")))
    grave = groups.add(group(replace(PLAIN, seqlen_q=0), DEAD))
    assert groups.sorted() == [grave, mild, known]
