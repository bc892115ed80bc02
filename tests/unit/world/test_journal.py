"""A journal says what a process was at when it died."""

from __future__ import annotations

from pathlib import Path

from pinproof_cell.world.journal import Journal


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    """What a dying process wrote by half is not read, and its work is the unfinished one."""
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.lines() == []
    assert journal.size() == 0
    journal.add("begin", check="a")
    journal.add("end", check="a", status="PASS")
    journal.add("begin", check="b")
    with journal.path.open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "end", "che')
    assert [line["kind"] for line in journal.lines()] == ["begin", "end", "begin"]
    assert [line["check"] for line in journal.lines("end")] == ["a"]
    unfinished = journal.unfinished("check")
    assert unfinished is not None
    assert unfinished["check"] == "b"


def test_work_is_known_by_all_its_names(tmp_path: Path) -> None:
    """Two pieces of work that share a name are two."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add("begin", mutant="m", check="a")
    journal.add("end", mutant="m", check="a")
    journal.add("begin", mutant="n", check="a")
    unfinished = journal.unfinished("mutant", "check")
    assert unfinished is not None
    assert unfinished["mutant"] == "n"
    journal.add("end", mutant="n", check="a")
    assert journal.unfinished("mutant", "check") is None
