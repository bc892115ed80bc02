"""Source builds from the command: resumed, done once, verified, patched, refused."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import small_project
from small_project import SETUP, UNITS, Project
from wheels import make_sdist

from pinproof.builds.build import Patch
from pinproof.builds.cache import Cache
from pinproof.builds.source import Kind, Source
from pinproof.evidence.store import sha256
from pinproof.locks import wheelhouse


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.environment(tmp_path_factory.mktemp("env") / "venv")


@pytest.fixture
def project(tmp_path: Path, python: Path) -> Project:
    tree = small_project.write(tmp_path / "tree")
    return Project(tree=tree, python=python, store=tmp_path / "store")


def kill(pid: int) -> None:
    """End a process and everything that it started, without a warning."""
    whole = psutil.Process(pid)
    for each in [*whole.children(recursive=True), whole]:
        each.kill()


def test_a_build_that_was_killed_half_way_repeats_less_than_a_tenth(project: Project) -> None:
    build = project.build()
    child = project.start(build, "--jobs", "2")
    while len(project.compiled) < UNITS // 2:
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    kill(child.pid)
    child.communicate()
    before = project.compiled
    code, said = project.run(build, "--jobs", "2")
    assert code == 0, said
    assert "going on in" in said
    # What was running when it was killed, two at most, was not finished.
    finished = set(before[:-2])
    again = [unit for unit in project.compiled[len(before) :] if unit in finished]
    assert len(again) < len(finished) / 10
    assert set(project.compiled) == {f"unit{n}" for n in range(UNITS)}


def test_two_processes_that_want_one_wheel_build_it_once(project: Project) -> None:
    build = project.build()
    children = [project.start(build, "--jobs", "2") for _ in range(2)]
    said = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert len(project.compiled) == UNITS
    assert sum("in the cache since" in text for text in said) == 1
    (record,) = Cache(project.store / "builds").records()
    assert record.key == build.key
    assert record.inputs == build.inputs()
    assert record.tools["nvcc"] == "13.0.88"
    assert [each["status"] for each in record.libraries] == ["NO-GPU-CODE"]
    assert not Cache(project.store / "builds").work_dir(build.key).exists()


def test_a_wheel_that_was_edited_is_put_aside_and_built_anew(project: Project) -> None:
    build = project.build()
    assert project.run(build, "--jobs", "2")[0] == 0
    cache = Cache(project.store / "builds")
    (record,) = cache.records()
    cache.wheel_path(record).write_bytes(b"other bytes")
    assert project.run(build, "--jobs", "2")[0] == 0
    assert len(project.compiled) == 2 * UNITS
    assert [path.read_bytes() for path in (cache.root / "quarantine").iterdir()] == [b"other bytes"]
    found = cache.find(build.key)
    assert found is not None
    assert sha256(cache.wheel_path(found)) == found.sha256


def test_a_build_that_runs_out_of_memory_is_tried_once_more_with_half_the_jobs(
    project: Project,
) -> None:
    code, said = project.run(project.build(HUNGRY="1"), "--jobs", "4")
    assert code == 0, said
    assert "jobs: 4 (asked for)" in said
    assert "jobs: 2 (4 ran out of memory)" in said
    code, said = project.run(project.build(HUNGRY="yes"), "--jobs", "8")
    assert code == 4, said
    assert "jobs: 4 (8 ran out of memory)" in said
    assert "jobs: 2" not in said


def test_a_patch_is_part_of_the_build_and_one_that_does_not_apply_is_refused(
    project: Project, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.patch", tmp_path / "bad.patch"
    good.write_text(
        "--- a/unit0.cpp\n+++ b/unit0.cpp\n@@ -1,2 +1,2 @@\n // a small unit\n"
        "-int unit0() { return 0; }\n+int unit0() { return patched; }\n"
    )
    bad.write_text(good.read_text().replace("// a", "// no"))
    plain = project.build()
    patched = replace(plain, patches=(Patch(path=str(good), sha256=sha256(good)),))
    assert patched.key != plain.key
    code, said = project.run(patched)
    assert code == 1
    assert "unit0.cpp:2:22: error: " in said
    code, said = project.run(replace(plain, patches=(Patch(path=str(bad), sha256=sha256(bad)),)))
    assert code == 2
    assert "the patch bad.patch does not apply: patch failed: unit0.cpp:1" in said
    assert "Traceback" not in said


def test_a_release_is_built_from_a_wheelhouse_alone_and_its_code_sees_no_index(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where nobody listens: whoever asks an index fails.
    secret = "http://me:correct-horse@127.0.0.1:9/wheels"
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "HTTPS_PROXY"):
        monkeypatch.setenv(name, secret)
    house = tmp_path / "house"
    house.mkdir()
    wheelhouse.save(
        wheelhouse.House(
            directory=house,
            matrix="m",
            python="3.11",
            platform="",
            wheels=(),
            entries={},
            cells={},
        )
    )
    release = Source(project="flash-attn", kind=Kind.RELEASE, place="2.8.3", identity="2.8.3")
    build = replace(project.build(), source=release)
    code, said = project.run(build, "--wheelhouse", str(house))
    assert code == 4, said
    assert "flash-attn==2.8.3" in said
    seen = "open(os.environ['COMPILED'] + '.env', 'a').write(str(dict(os.environ)))\n"
    files = {path.name: path.read_text() for path in project.tree.iterdir()}
    make_sdist(house, "flash-attn", "2.8.3", {**files, "setup.py": f"import os\n{seen}" + SETUP})
    code, said = project.run(build, "--wheelhouse", str(house))
    assert code == 0, said
    told = Path(dict(build.env)["COMPILED"] + ".env").read_text()
    assert "MAX_JOBS" in told
    assert "correct-horse" not in told


def test_sources_that_do_not_compile_end_with_the_compilers_words_and_leave_no_record(
    project: Project,
) -> None:
    (project.tree / "unit3.cpp").write_text("int unit3() { return wrong; }\n")
    code, said = project.run(project.build())
    assert code == 1
    assert "does not build for 120" in said
    assert "likely cause: " in said
    assert "was not declared in this scope" in said.rpartition("likely cause")[2]
    assert Cache(project.store / "builds").records() == []


def test_a_build_in_a_conda_environment_takes_its_nvcc_and_its_compiler(
    project: Project, tmp_path: Path
) -> None:
    home = tmp_path / "conda"
    own = replace(project, python=small_project.environment(home))
    (home / "conda-meta").mkdir()
    (home / "targets" / "x86_64-linux" / "include").mkdir(parents=True)
    # Each says who was called; setuptools and ninja of the project get the compiler from CXX.
    programs = {
        "nvcc": "echo 'Cuda compilation tools, release 12.8, V12.8.93'\n",
        "x86_64-conda-linux-gnu-gcc": 'exec gcc "$@"\n',
        "x86_64-conda-linux-gnu-g++": "[ $1 = -dumpfullversion ] && exec echo 14.3.0\n",
    }
    for name, text in programs.items():
        program = home / "bin" / name
        program.write_text(f"#!/bin/sh\n{text}")
        program.chmod(0o755)
    code, said = own.run(replace(own.build(), cuda="12.8"))
    assert code == 0, said
    (record,) = Cache(own.store / "builds").records()
    assert (record.tools["nvcc"], record.tools["gcc"]) == ("12.8.93", "14.3.0")
    code, said = own.run(replace(own.build(), cuda="13.0"))
    assert (code, "the build wants CUDA 13.0" in said) == (2, True), said
