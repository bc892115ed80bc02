"""The verdicts and their order."""

from pinproof.judge.verdict import PRECEDENCE, Verdict


def test_every_verdict_has_its_place():
    assert sorted(PRECEDENCE) == sorted(Verdict)
    worst_to_best = list(Verdict)[: list(Verdict).index(Verdict.SAFE) + 1]
    assert [each for each in PRECEDENCE if each in worst_to_best] == worst_to_best


def test_no_verdict_is_both_against_the_combination_and_against_the_machine():
    for each in Verdict:
        assert not (each.is_bad and each.is_infrastructure)
    assert not Verdict.SAFE.is_bad
