"""A check is known by its id; its document says all that the host judges it by."""

from __future__ import annotations

import json

import pytest

from pinproof_cell.suite import checks
from pinproof_cell.suite.cases import FEATURES, Case

SUITES = [(level, device) for level in checks.LEVELS for device in checks.DEVICES]


@pytest.mark.parametrize(("level", "device"), SUITES)
def test_ids_are_unique_and_lead_back(level: str, device: str) -> None:
    """Each id names one check, of features that exist, and is found again by it."""
    found = checks.suite(level, device)
    assert len({check.id for check in found}) == len(found)
    assert [checks.by_id(check.id) for check in found] == list(found)
    assert frozenset().union(*(check.features for check in found)) <= FEATURES
    assert all(check.uses for check in found)


def test_an_unknown_id_is_a_key_error() -> None:
    """What is not in any suite is not invented."""
    with pytest.raises(KeyError):
        checks.by_id("repeats3@nothing")


@pytest.mark.parametrize("device", checks.DEVICES)
def test_quick_is_part_of_full_and_wakes_the_same_features(device: str) -> None:
    """The quick suite asks every feature of the full one, but what is known to kill a process."""
    quick, full = (checks.suite(level, device) for level in checks.LEVELS)
    cases = [{check.id for check in found if isinstance(check, Case)} for found in (quick, full)]
    assert cases[0] <= cases[1]
    asked = [frozenset().union(*(check.features for check in found)) for found in (quick, full)]
    assert asked[1] - asked[0] <= {"no-keys", "far"}


def test_the_facts_of_a_check_are_json_and_hold_the_whole_case() -> None:
    """From the fields in a document the same case can be made again."""
    for check in checks.suite():
        facts = json.loads(json.dumps(checks.facts(check)))
        assert facts["kind"] in ("case", "identity", "repeats")
        assert facts["features"] == sorted(check.features)
        fields = {
            name: tuple(map(tuple, value)) if name == "lengths" else value
            for name, value in facts["case"].items()
        }
        if "window" in fields:
            fields["window"] = tuple(fields["window"])
        assert Case(**fields) == check.case
