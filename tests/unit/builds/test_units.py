"""The units of a build: made one, told as they are done, and timed from ninja's log."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.builds import project, units
from pinproof.builds.units import Progress, Union

UNION = Union(
    name="as one", listing="setup.py", folder="src", names=("a.cu", "b.cu", "c.cu"), into="all.cu"
)


def tree(directory: Path, *names: str) -> Path:
    """Write a project whose setup.py names these units between two others."""
    (directory / "src").mkdir(parents=True)
    for name in names:
        (directory / "src" / name).write_text(f"int {name[0]};\n")
    listed = "".join(f'    "src/{name}",\n' for name in ("first.cu", *names, "last.cu"))
    (directory / "setup.py").write_text(f"sources = [\n{listed}]\n")
    return directory


def test_united_units_are_one_that_includes_them_and_the_others_stay(tmp_path: Path) -> None:
    made = tree(tmp_path, *UNION.names)
    assert UNION.attempt(made)
    found: dict[str, list[str]] = {}
    exec((made / "setup.py").read_text(), found)
    assert found["sources"] == ["src/first.cu", "src/all.cu", "src/last.cu"]
    assert (made / "src" / "all.cu").read_text().split() == [
        word for name in UNION.names for word in ("#include", f'"{name}"')
    ]


@pytest.mark.parametrize("names", [("a.cu", "b.cu"), ("a.cu", "b.cu", "c.cu", "c.cu")])
def test_a_tree_that_is_written_otherwise_is_left_alone(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    made = tree(tmp_path, *names)
    before = (made / "setup.py").read_text()
    assert not UNION.attempt(made)
    assert (made / "setup.py").read_text() == before
    assert not (made / "src" / "all.cu").exists()


def test_what_ninja_has_run_is_told_in_a_few_words() -> None:
    said: list[str] = []
    hear = Progress(said.append)
    hear("  copying x.py")
    hear("  [3/50] /cuda/bin/nvcc -MF /b/unit.o.d -c /s/unit.cu -o /b/unit.o -O3 -std=c++17")
    hear("  [50/50] c++ a.o b.o c.o -shared -o x.so")
    assert said[0] == "  copying x.py"
    assert [line.partition(" s: ")[2] for line in said[1:]] == ["unit", "linked"]
    assert said[1].startswith("[3/50] 0 s")


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(1, 10**6), max_size=5))
def test_each_units_time_is_its_last_one_and_the_slowest_comes_first(times: dict[str, int]) -> None:
    rows = [f"5\t{5 + ms // 2}\t0\t/b/{name}.o\tff\n" for name, ms in times.items()]
    rows += [f"7\t{7 + ms}\t0\t/b/{name}.o\tff\n" for name, ms in times.items()]

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "build" / ".ninja_log"
        log.parent.mkdir()
        log.write_text("# ninja log v7\n" + "".join(rows) + "8\t9\thalf a li")
        found = units.seconds(Path(folder))
    assert found == {name: ms / 1000 for name, ms in times.items()}
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_what_is_saved_is_part_of_what_flash_attn_is_told() -> None:
    def names(*without: str) -> list[str]:
        return [each.name for each in project.knobs("flash-attn", "90", "stock", without).savings]

    assert names() == []
    assert names("dropout") == []
    assert names("backward") == [project.BACKWARD.name]
    assert names("uneven_k", "dropout") == [project.DEAD.name]
