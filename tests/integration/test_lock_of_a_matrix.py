"""The session `lock` as a user calls it: made, held, stale, renewed, with nox's exit codes."""

from __future__ import annotations

import json

from checkouts import Project

MATRIX = """format = 1
[targets.cpu]
[[matrix]]
name = "locked"
target = "cpu"
axes = { torch = ["2.13.0"], triton = ["3.9.0"] }
"""
FILE = ("--matrix-file", "locked.toml")


def test_a_matrix_is_locked_checked_found_stale_and_renewed(project: Project) -> None:
    path = project.root / "locked.toml"
    path.write_text(MATRIX, encoding="utf-8")
    made = project.nox("-s", "lock", "--", *FILE, "--matrix", "locked")
    assert made.code == 0, made.text
    (pins,) = (project.root / "lockfiles" / "locked").glob("*.txt")
    assert "torch==2.13.0" in pins.read_text(encoding="utf-8")

    held = project.nox("-s", "lock", "--", *FILE, "--check", "--json")
    assert held.code == 0, held.text
    (document,) = json.loads(held.out)["matrices"]
    assert (document["matrix"], document["locked"], document["changes"]) == ("locked", 1, [])

    more = "[[matrix.overrides]]\nselect = 'target == \"cpu\"'\nrequirements = ['pluggy']\n"
    path.write_text(MATRIX + more, encoding="utf-8")
    stale = project.nox("-s", "lock", "--", *FILE, "--check")
    assert stale.code == 5, stale.text
    assert "locked -> the matrix asks for something else" in stale.out

    run = project.nox("-s", "matrix", "--", *FILE, "--matrix", "locked", "--dry-run")
    assert "0 of 1 cells" in run.text
    assert project.nox("-s", "lock", "--", *FILE).code == 0
    run = project.nox("-s", "matrix", "--", *FILE, "--matrix", "locked", "--dry-run")
    assert "1 of 1 cells" in run.text


def test_a_lock_that_was_edited_by_hand_ends_a_run_before_it_begins(project: Project) -> None:
    path = project.root / "lockfiles" / "cpu.lock.toml"
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace("manylinux_2_28", "manylinux_2_17"), encoding="utf-8")
    try:
        ended = project.matrix("--matrix", "cpu", "--dry-run")
    finally:
        path.write_text(sound, encoding="utf-8")
    assert ended.code == 2
    assert "lockfiles/cpu.lock.toml: was edited by hand" in ended.err
    assert "Traceback" not in ended.text
