"""The slow units of a build come first, and nothing else of it changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.builds import ninja_first

HEAD = "ninja_required_version = 1.3\nrule cc\n  command = touch $out && echo $out >> log\n\n"
TAIL = "\nbuild all: phony a.o\ndefault all\n"
NAMES = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8, unique=True)


def listing(names: list[str]) -> str:
    return HEAD + "".join(f"build {name}.o: cc\n  depth = 1\n" for name in names)


@given(NAMES, st.lists(st.sampled_from("abcdef"), max_size=3))
def test_the_same_statements_stand_in_another_order(names: list[str], slowest: list[str]) -> None:
    text = listing(names) + "\ndefault a.o\n"
    better = ninja_first.sorted_slowest_first(text, slowest)
    assert sorted(better.split("build ")) == sorted(text.split("build ")) or (
        sorted(better) == sorted(text)
    )
    assert better.startswith(HEAD)
    assert better.endswith("default a.o\n")
    assert ninja_first.sorted_slowest_first(better, slowest) == better


def test_units_are_ranked_by_the_first_pattern_that_they_match() -> None:
    text = listing(["api", "fwd_32", "fwd_256", "split_32", "split_256"])
    better = ninja_first.sorted_slowest_first(text, ["split_256", "split", "fwd_256"])
    order = [line.split()[1] for line in better.splitlines() if line.startswith("build")]
    assert order == ["split_256.o:", "split_32.o:", "fwd_256.o:", "api.o:", "fwd_32.o:"]


@pytest.mark.skipif(shutil.which("ninja") is None, reason="there is no ninja on this machine")
def test_the_real_ninja_builds_in_that_order_and_a_second_time_nothing(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "build.ninja").write_text(listing(["a", "b", "slow"]))
    more = ninja_first.install(tmp_path / "bin", Path(sys.executable), ["slow"])
    real = {ninja_first.REAL: str(shutil.which("ninja"))}
    path = os.pathsep.join((str(tmp_path / "bin"), os.environ["PATH"]))
    env = {**os.environ, **more, **real, "PATH": path}
    for _ in range(2):
        subprocess.run(["ninja", "-j", "1"], cwd=work, env=env, check=True)
    assert (work / "log").read_text().split() == ["slow.o", "a.o", "b.o"]
