"""Tests of the store: evidence whole or not at all, one run at a time."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pinproof.errors import InfrastructureError
from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.evidence.store import Store, read_json, write_json, write_text
from pinproof.plan.stage import Stage

Edit = Callable[[dict[str, Any]], object]


def record(started: str = "2026-11-23T10:00:00+00:00", torch: str = "2.13.0") -> Evidence:
    inputs = {"torch": torch}
    return Evidence(
        cell="cpu-aaaaaa",
        stage=Stage.INSPECT,
        digest=digest_of(inputs),
        outcome=Outcome.OK,
        data={"python": "3.11"},
        inputs=inputs,
        machine={"target": "cpu"},
        started=started,
        seconds=1.5,
    )


def test_what_is_saved_is_loaded_by_its_digest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(record())
    assert store.load("cpu-aaaaaa", Stage.INSPECT, record().digest) == record()
    assert store.load("cpu-aaaaaa", Stage.INSPECT, "0" * 64) is None


def test_the_latest_evidence_is_the_one_that_started_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(record("2026-11-23T10:00:00+00:00", "1"))
    store.save(record("2026-11-23T11:00:00+00:00", "2"))
    store.save(record("2026-11-22T10:00:00+00:00", "3"))
    latest = store.latest("cpu-aaaaaa", Stage.INSPECT)
    assert latest is not None
    assert latest.inputs == {"torch": "2"}


def test_a_run_that_saw_less_does_not_replace_one_that_saw_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    partly = replace(record(), data={"incomplete": ["out of memory"]})
    store.save(partly)
    assert store.load("cpu-aaaaaa", Stage.INSPECT, partly.digest) == partly
    store.save(record())
    store.save(partly)
    assert store.load("cpu-aaaaaa", Stage.INSPECT, partly.digest) == record()


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"schema": 99}', "\x00", "[" * 99999])
def test_damaged_evidence_is_no_evidence(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.save(record())
    store.evidence_path("cpu-aaaaaa", Stage.INSPECT, record().digest).write_text(damage)
    assert store.load("cpu-aaaaaa", Stage.INSPECT, record().digest) is None
    assert store.latest("cpu-aaaaaa", Stage.INSPECT) is None


def test_evidence_whose_inputs_were_edited_is_not_trusted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(record())
    path = store.evidence_path("cpu-aaaaaa", Stage.INSPECT, record().digest)
    raw = json.loads(path.read_text())
    raw["inputs"]["torch"] = "2.14.0"
    path.write_text(json.dumps(raw))
    assert store.load("cpu-aaaaaa", Stage.INSPECT, record().digest) is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw.update(data={}),
        lambda raw: raw.update(data={"python": None}),
        lambda raw: raw.update(outcome="failed"),
        lambda raw: raw.update(machine={"target": "sm_120"}),
        lambda raw: raw.pop("checksum"),  # as versions without one wrote it
    ],
    ids=["no data", "null", "outcome", "machine", "no checksum"],
)
def test_a_record_of_which_anything_was_changed_is_no_evidence(tmp_path: Path, edit: Edit) -> None:
    store = Store(tmp_path)
    store.save(record())
    name = ("cpu-aaaaaa", Stage.INSPECT, record().digest)
    assert not store.is_damaged(*name)
    path = store.evidence_path(*name)
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))
    assert store.load(*name) is None
    assert store.latest("cpu-aaaaaa", Stage.INSPECT) is None
    assert store.is_damaged(*name)
    assert not store.is_damaged("cpu-aaaaaa", Stage.INSPECT, "0" * 64)


def test_a_write_that_fails_leaves_the_old_file_and_no_scrap(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_place_that_cannot_be_written_is_an_infrastructure_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(InfrastructureError, match="cannot write"):
        write_text(blocker / "x.txt", "")


def test_a_full_disk_is_an_infrastructure_error() -> None:
    with pytest.raises(InfrastructureError):
        write_text(Path("/dev/full/x"), "x")


def test_a_second_run_of_the_same_store_is_refused(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    refused = pytest.raises(InfrastructureError, match="another run")
    with first.exclusive(), refused, second.exclusive():
        pass
    with Store(tmp_path).exclusive():
        pass
