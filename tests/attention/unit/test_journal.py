"""Journals: what a process that died has left behind is read, and what it was at is named."""

from __future__ import annotations

from pathlib import Path

from pinproof_cell.world.journal import Journal


def test_a_journal_that_a_crash_cut_short_is_read_up_to_there_and_behind(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.lines() == []
    journal.add("begin", check="a")
    with journal.path.open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "en\n')
    journal.add("begin", check="b")
    assert [line["check"] for line in journal.lines("begin")] == ["a", "b"]
    assert journal.lines("end") == []


def test_what_was_begun_and_not_ended_is_what_the_process_died_of(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.unfinished("kernel", "number") is None
    for number in (1, 2):
        journal.add("begin", kernel="k", number=number)
    journal.add("end", kernel="k", number=1)
    found = journal.unfinished("kernel", "number")
    assert found is not None
    assert found["number"] == 2


def test_what_was_begun_and_not_ended_can_be_taken_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.take_back("kernel")
    journal.add("begin", kernel="a")
    journal.add("end", kernel="a")
    journal.add("begin", kernel="b")
    journal.take_back("kernel")
    assert [(line["kind"], line["kernel"]) for line in journal.lines()] == [
        ("begin", "a"),
        ("end", "a"),
    ]
