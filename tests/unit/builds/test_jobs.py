"""Tests of how many compilers run side by side."""

from pathlib import Path

import pytest

from pinproof.builds import jobs
from pinproof.builds.jobs import Jobs, Room


@pytest.mark.parametrize(
    ("cores", "memory", "count", "limit"),
    [(64, 16.0, 2, "memory"), (2, 512.0, 2, "cores"), (8, 2.0, 1, "memory"), (16, 128.0, 16, "c")],
)
def test_as_many_run_as_cores_and_memory_allow(
    cores: int, memory: float, count: int, limit: str
) -> None:
    chosen = jobs.choose(Room(cores=cores, memory_gib=memory, why="measured"), 7.0)
    assert chosen.count == count
    assert f": {limit}" in chosen.why
    assert "measured" in chosen.why


def test_a_cgroup_that_allows_less_than_the_machine_has_is_what_counts(tmp_path: Path) -> None:
    gib = 2**30
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{3 * gib}\n")
    (tmp_path / "memory.current").write_text(f"{2 * gib}\n")
    found = jobs.room(tmp_path)
    assert found.cores == 1
    assert found.memory_gib <= 1.0
    assert "the cgroup has 1.0 GiB left" in found.why


def test_without_a_cgroup_the_machine_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    found = jobs.room(tmp_path)
    assert found.cores >= 1
    assert found.memory_gib > 0


def test_after_the_memory_failed_half_as_many_run() -> None:
    assert jobs.halved(Jobs(count=8, why="")).count == 4
    assert jobs.halved(Jobs(count=1, why="")) == Jobs(
        count=1, why="1 ran out of memory", is_retry=True
    )


@pytest.mark.parametrize(
    ("said", "is_oom"),
    [
        ("nvcc error   : 'cicc' died due to signal 9 (Kill signal)", True),
        ("g++: fatal error: Killed signal terminated program cc1plus", True),
        ("virtual memory exhausted: Cannot allocate memory", True),
        ("/bin/sh: line 1: 4242 Killed", False),
        ("Killed\n", True),
        ("nvcc error   : 'ptxas' died due to signal 11", False),
        ("KilledWorker: no such thing\nerror: expected ';'", False),
    ],
)
def test_a_compiler_that_was_killed_for_memory_is_recognised(said: str, is_oom: bool) -> None:
    assert jobs.ran_out_of_memory(said) is is_oom
