"""Tests of the evidence record."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.plan.stage import Stage


def record() -> Evidence:
    return Evidence(
        cell="cpu-aaaaaa",
        stage=Stage.INSTALL,
        digest=digest_of({"b": 1, "a": 2}),
        outcome=Outcome.FAILED,
        reason="no",
        data={},
        inputs={"b": 1, "a": 2},
        machine={},
        started="2026-11-23T10:00:00+00:00",
        seconds=0.0,
    )


def signed(**more: Any) -> dict[str, Any]:
    """Return the JSON of a record with other values, and the checksum of these."""
    raw = {**record().to_json(), **more}
    del raw["checksum"]
    return {**raw, "checksum": digest_of(raw)}


def test_the_order_of_keys_does_not_change_a_digest() -> None:
    assert digest_of({"a": 2, "b": 1}) == digest_of({"b": 1, "a": 2})
    assert digest_of({"a": 2, "b": 1}) != digest_of({"b": 2, "a": 1})


def test_a_record_survives_its_json() -> None:
    assert Evidence.from_json(json.loads(json.dumps(record().to_json()))) == record()


def test_a_record_of_a_newer_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="schema"):
        Evidence.from_json(signed(schema=2))


def test_a_record_with_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="fine"):
        Evidence.from_json(signed(outcome="fine"))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_facts_about_the_combination_are_final(outcome: Outcome) -> None:
    assert outcome.is_final == (outcome in {Outcome.OK, Outcome.FAILED, Outcome.CRASHED})


def test_what_the_machine_kept_a_stage_from_seeing_makes_its_record_not_final() -> None:
    whole = replace(record(), outcome=Outcome.OK, data={"incomplete": []})
    assert (whole.is_final, whole.incomplete) == (True, "")
    partly = replace(whole, data={"incomplete": ["a: out of memory", "b: killed"]})
    assert (partly.is_final, partly.incomplete) == (False, "a: out of memory")
    assert not replace(record(), outcome=Outcome.INFRA).is_final
