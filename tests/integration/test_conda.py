"""Conda environments from a real channel on disk: locked, installed, used by a cell, and broken."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import conda_channel
import pytest
from checkouts import ROOT, Ended
from wheels import make_wheel, sha256

from pinproof.errors import InfrastructureError
from pinproof.locks import archive as archives
from pinproof.locks import installer
from pinproof.locks.conda import child, kept, lockfile
from pinproof.locks.lock import Lock, Pin
from pinproof.run import conda_environment, process

#: A cell of nothing but conda packages: what the wheels would be is left out.
MATRIX = """
format = 1
[targets.cpu]
[[matrix]]
name = "small"
target = "cpu"
default = true
backend = "conda"
conda = "cuda-13.0"
checks = []
axes = { torch = ["2.13.0"] }

[[matrix.overrides]]
select = 'torch == "2.13.0"'
without = ["torch", "numpy", "pytest", "triton"]
"""


class Project:
    """A project with one conda environment over a channel of its own."""

    def __init__(self, root: Path, channel: Path) -> None:
        self.root = root
        self.channel = shutil.copytree(channel, root / "channel")
        self.spec = conda_channel.specify(root, self.channel)
        (root / "matrix.toml").write_text(MATRIX)

    def pinproof(self, *words: str, **env: str) -> Ended:
        return self.python("-m", "pinproof", *words, **env)

    def python(self, *words: str, **env: str) -> Ended:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "src"),
                "PINPROOF_ROOT": str(self.root),
                "CONDA_OVERRIDE_CUDA": "",
                **env,
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def locked(self) -> lockfile.Lock:
        """Lock, and return what was locked."""
        ended = self.pinproof("conda", "lock", "cuda-13.0")
        assert ended.code == 0, ended.text
        return lockfile.read(self.lock)

    @property
    def lock(self) -> Path:
        return self.root / "lockfiles" / "cuda-13.0.conda-lock.yml"

    @property
    def cell(self) -> Path:
        (home,) = (path for path in (self.root / ".nox").glob("cpu-*") if path.is_dir())
        return home


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conda_channel.make(tmp_path_factory.mktemp("conda") / "channel")


@pytest.fixture
def project(tmp_path: Path, channel: Path) -> Project:
    return Project(tmp_path, channel)


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory, channel: Path) -> tuple[Project, Ended]:
    """A project whose cell was installed."""
    made = Project(tmp_path_factory.mktemp("conda"), channel)
    made.locked()
    return made, made.pinproof("run", "--offline", "--until", "install")


def test_a_machine_without_a_gpu_locks_for_sm_120(project: Project) -> None:
    lock = project.locked()
    names = {each.name: each for each in lock.of("linux-64")}
    assert names["blackwell-kernels"].depends == (("__cuda_arch", ">=12.0"),)
    assert "cuda-cudart" in names, "a run dependency"
    assert "/noarch/" in names["greeting"].url
    assert "__cuda_arch=12.0" in (lock.declared or {})["virtual-packages-linux-64"]


def test_a_target_that_no_package_fits_is_refused_with_the_solver_s_reason_and_the_old_lock_stays(
    project: Project,
) -> None:
    project.locked()
    before = project.lock.read_bytes()
    conda_channel.specify(project.root, project.channel, arch="8.9")
    ended = project.pinproof("conda", "lock", "cuda-13.0")
    assert ended.code == 2
    assert "__cuda_arch >=12.0 is needed (the compute capability of the target" in ended.err
    assert "declares __cuda_arch 8.9" in ended.err
    assert "blackwell-kernels 1.0 would require" in ended.err
    assert "Traceback" not in ended.text
    assert project.lock.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "code", "told"),
    [
        ("greeting]", "no-such-package]", 2, "No candidates were found for no-such-package"),
        ("cuda-nvcc 13.0.*", "cuda-nvcc >=>1", 2, "is no spec of conda"),
        ("/channel", "/nowhere", 4, "a channel of envs/cuda-13.0.yml cannot be read"),
        ("file:///", "http://127.0.0.1:9/", 4, "cannot be read"),
        ('__cuda: "13.0"', '__cuda: "12.8"', 2, "it declares __cuda 12.8"),
    ],
)
def test_what_cannot_be_locked_says_why_and_leaves_no_lock(
    project: Project, old: str, new: str, code: int, told: str
) -> None:
    text = project.spec.read_text()
    assert old in text
    project.spec.write_text(text.replace(old, new))
    ended = project.pinproof("conda", "lock")
    assert (ended.code, told in ended.err) == (code, True), ended.text
    assert "Traceback" not in ended.text
    assert not project.lock.exists()


def test_a_check_says_what_moved_in_the_channel_and_writes_nothing(project: Project) -> None:
    project.locked()
    before = project.lock.read_bytes()
    assert project.pinproof("conda", "check").out == "cuda-13.0: holds\n"
    assert project.pinproof("lock", "--env", "cuda-13.0", "--check").out == "cuda-13.0: holds\n"
    conda_channel.add(project.channel, "cuda-cudart", "13.1.0")
    conda_channel.index(project.channel)
    ended = project.pinproof("conda", "check")
    assert (ended.code, ended.out.partition("\n")[0]) == (0, "cuda-13.0: holds"), ended.text
    assert "cuda-cudart 13.0.96 0 is now 13.1.0 0" in ended.out
    assert project.lock.read_bytes() == before
    assert "cuda-cudart 13.0.96 0 is now 13.1.0 0" in project.pinproof("conda", "lock").out
    assert lockfile.read(project.lock).version("cuda-cudart", "linux-64") == "13.1.0"


def test_a_lock_is_stale_where_its_specification_changed_or_a_package_is_not_to_be_had(
    project: Project,
) -> None:
    project.locked()
    text = project.spec.read_text()
    project.spec.write_text(text.replace('__cuda: "13.0"', '__cuda: "13.1"'))
    ended = project.pinproof("conda", "check")
    assert (ended.code, "asks for something else on linux-64" in ended.out) == (5, True), ended.text
    project.spec.write_text(text)
    archive = project.channel / "linux-64" / "cuda-cudart-13.0.96-0.conda"
    kept = archive.rename(project.root / archive.name)
    conda_channel.add(project.channel, "cuda-cudart", "13.1.0")
    conda_channel.index(project.channel)
    ended = project.pinproof("lock", "--env", "cuda-13.0", "--check")
    assert (ended.code, "cuda-cudart-13.0.96-0.conda cannot be had" in ended.out) == (5, True), (
        ended.text
    )
    kept.rename(archive)  # the channel lists it no more, and still has it
    ended = project.pinproof("conda", "check")
    assert (ended.code, "13.0.96 0 is now 13.1.0 0" in ended.out) == (0, True), ended.text


def test_what_locks_environments_came_to_is_a_document_too(project: Project) -> None:
    words = ("lock", "--env", "cuda-13.0", "--json")
    (first,) = json.loads(project.pinproof(*words).out)["environments"]
    assert (first["state"], first["file"]) == ("locked", "lockfiles/cuda-13.0.conda-lock.yml")
    told = json.loads(project.pinproof(*words, "--check").out)
    (found,) = told["environments"]
    assert (told["exit_code"], found["state"], found["stale"], found["moved"]) == (
        0,
        "holds",
        [],
        [],
    )


@pytest.mark.parametrize("word", ["matrix", "axis", "cell", "python", "platform"])
def test_what_belongs_to_a_matrix_is_refused_beside_an_environment(
    project: Project, word: str
) -> None:
    ended = project.pinproof("lock", "--env", "cuda-13.0", f"--{word}", "x")
    assert (ended.code, f"--env and --{word} do not go together" in ended.err) == (2, True)
    assert not project.lock.exists()


def test_a_lock_that_would_say_the_same_is_not_written_again(project: Project) -> None:
    project.locked()
    before = project.lock.stat().st_mtime_ns
    assert "nothing moved" in project.pinproof("conda", "lock").out
    assert project.lock.stat().st_mtime_ns == before


def test_a_lock_of_a_newer_schema_is_not_written_over(project: Project) -> None:
    project.locked()
    newer = project.lock.read_text().replace("version: 1\n", "version: 2\n", 1)
    project.lock.write_text(newer)
    ended = project.pinproof("conda", "lock")
    assert (ended.code, "its schema 2" in ended.err) == (2, True), ended.text
    assert project.lock.read_text() == newer


def test_a_cell_stands_on_its_conda_packages_with_the_network_off(
    proven: tuple[Project, Ended],
) -> None:
    project, ended = proven
    assert ":install" in ended.out, ended.text
    assert "failed" not in ended.out
    code = "import greeting, sys; print(greeting.WORDS, sys.prefix)"
    done = subprocess.run(
        [project.cell / "bin" / "python", "-I", "-c", code], capture_output=True, text=True
    )
    assert done.stdout.split() == ["hello", "from", "conda", str(project.cell)], done.stderr


def test_nox_takes_the_environment_as_one_of_its_rattler_back_end(
    proven: tuple[Project, Ended], tmp_path: Path
) -> None:
    project, _ = proven
    noxfile = tmp_path / "noxfile.py"
    noxfile.write_text(
        "import nox\n"
        f"@nox.session(name={project.cell.name!r}, venv_backend='rattler', reuse_venv=True)\n"
        "def use(session):\n"
        "    session.run('python', '-c', 'import greeting; print(greeting.WORDS)')\n"
    )
    words = ["-m", "nox", "-f", str(noxfile), "--envdir", str(project.cell.parent)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert "hello from conda" in done.stdout, done.stderr
    assert "Creating" not in done.stderr


def test_a_second_run_installs_nothing(proven: tuple[Project, Ended]) -> None:
    project, _ = proven
    evidence = sorted((project.root / ".pinproof" / "evidence").rglob("*.json"))
    before = [path.stat().st_mtime_ns for path in evidence]
    again = project.pinproof("run", "--offline", "--until", "install")
    assert "2 cached" in again.out, again.out
    assert [path.stat().st_mtime_ns for path in evidence] == before


def test_an_edit_of_a_conda_package_is_noticed_and_comes_back_from_its_archive(
    project: Project,
) -> None:
    project.locked()
    project.pinproof("run", "--offline", "--until", "install")
    library = project.cell / "lib" / "libcudart.so.13"
    library.write_text("edited through the hard link\n")
    kept = project.root / ".pinproof" / "conda" / "packages" / "cuda-cudart-13.0.96-0" / "lib"
    assert (kept / "libcudart.so.13").read_text() == library.read_text(), "it is one file"
    next((project.root / ".pinproof" / "evidence").glob("cpu-*/install-*.json")).unlink()
    ended = project.pinproof("run", "--offline", "--until", "install")
    assert "cuda-cudart-13.0.96-0: lib/libcudart.so.13 was edited after its install" in ended.out
    ended = project.pinproof("run", "--offline", "--until", "install")
    assert library.read_text() == "machine code\n", ended.text


def test_a_package_that_is_not_the_one_of_its_lock_is_not_installed(project: Project) -> None:
    project.locked()
    # A sound package under the old name: rattler alone would install it.
    other = conda_channel.add(
        project.root / "other", "cuda-cudart", "13.0.96", files={"lib/evil.so": "evil\n"}
    )
    other.replace(project.channel / "linux-64" / other.name)
    ended = project.pinproof("run", "--until", "install")
    assert "cuda-cudart-13.0.96-0.conda is not the package of its lock" in ended.text
    assert "INCONCLUSIVE" in ended.out
    assert not (project.root / ".nox" / "conda-meta").exists()
    (home,) = (project.root / ".pinproof" / "conda" / "archives").glob("*/linux-64/cuda-nvcc*")
    assert home.is_file(), "the others are kept"
    ended = project.pinproof("conda", "install", "cuda-13.0", "--into", "env")
    assert (ended.code, "its sha256 is" in ended.err) == (4, True), ended.text
    assert not (project.root / "env").exists()


def listing(channel: Path, named: str) -> Path:
    """Put a cuda-cudart into a channel that lists a file which it does not hold."""
    index = {"name": "cuda-cudart", "version": "13.0.96", "build": "0", "subdir": "linux-64"}
    index |= {"build_number": 0, "depends": []}
    path = {"_path": named, "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": 1}
    archive = channel / "linux-64" / "cuda-cudart-13.0.96-0.tar.bz2"
    with tarfile.open(archive, "w:bz2") as tar:
        for name, told in (("index", index), ("paths", {"paths_version": 1, "paths": [path]})):
            content = json.dumps(told).encode()
            member = tarfile.TarInfo(f"info/{name}.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def relock(project: Project, archive: Path) -> None:
    """Write the lock anew, with `archive` in the place of its cuda-cudart."""
    lock = lockfile.read(project.lock)
    packages = tuple(
        replace(each, url=archive.as_uri(), sha256=sha256(archive))
        if each.name == "cuda-cudart"
        else each
        for each in lock.packages
    )
    project.lock.write_text(replace(lock, packages=packages).text())


@pytest.mark.parametrize("named", ["../farewell-1.0-0/info/index.json", "/etc/passwd", "a/../../b"])
def test_a_package_that_names_a_file_outside_of_its_environment_is_not_installed(
    project: Project, named: str
) -> None:
    project.locked()
    relock(project, listing(project.channel, named))
    ended = project.pinproof("conda", "install", "cuda-13.0", "--into", "home/env")
    assert (ended.code, "it names a file outside of its environment" in ended.err) == (4, True), (
        ended.text
    )
    assert not (project.root / "home").exists()


def test_an_install_that_fails_leaves_every_directory_as_it_was(project: Project) -> None:
    project.locked()
    words = ("conda", "install", "cuda-13.0", "--into")
    assert project.pinproof(*words, "env").code == 0
    (project.root / "env" / "mine.txt").write_text("mine")
    thesis = project.root / "victim" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years")
    text = project.lock.read_text()
    relock(project, listing(project.channel, "lib/not-there.so"))
    for into, code, told in (
        ("victim", 2, "is not empty, and no conda environment that Pinproof made"),
        ("env", 4, "could not install"),
        ("new", 4, "could not install"),
    ):
        ended = project.pinproof(*words, into, "--store", "other")
        assert (ended.code, told in ended.err) == (code, True), ended.text
    assert thesis.read_text() == "years"
    assert (project.root / "env" / "mine.txt").read_text() == "mine"
    assert (project.root / "env" / "lib" / "libcudart.so.13").read_text() == "machine code\n"
    assert not (project.root / "new").exists()
    project.lock.write_text(text)
    assert project.pinproof(*words, "env", "--offline").code == 0
    assert not (project.root / "env" / "mine.txt").exists(), "it is replaced whole"


def test_an_install_that_is_interrupted_brings_the_older_environment_back(
    project: Project,
) -> None:
    project.locked()
    home, programs = project.root / "env", project.root / "bin"
    assert project.pinproof("conda", "install", "cuda-13.0", "--into", "env").code == 0
    (home / "mine.txt").touch()
    programs.mkdir()
    for name, text in (
        ("micromamba", "#!/bin/sh\n"),
        ("conda-lock", f"#!/bin/sh\nmkdir {home}; touch {home}/half\nexec sleep 60\n"),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PINPROOF_ROOT": str(project.root)}
    env["PATH"] = f"{programs}:{os.environ['PATH']}"
    words = ["conda", "install", "cuda-13.0", "--into", "env", "--with", "micromamba"]
    command = [sys.executable, "-m", "pinproof", *words]
    with subprocess.Popen(command, cwd=project.root, env=env, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while not (home / "half").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (home / "half").exists()
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
    assert sorted(path.name for path in home.glob("[hm]*")) == ["mine.txt"]
    assert not (project.root / ".env.pinproof").exists()


def test_a_lock_that_is_another_than_was_planned_with_is_not_installed(project: Project) -> None:
    lock = project.locked()
    back_end = conda_environment.Conda(
        environment="cuda-13.0",
        lock=lock,
        path=project.lock,
        packages=project.root / ".pinproof" / "conda",
    )
    python = project.root / "env" / "bin" / "python"
    tool = installer.installer(offline=False)
    (fill,) = back_end.install(python, Path("lock.txt"), Lock(python="3.12", product=()), tool)
    conda_channel.add(project.channel, "cuda-cudart", "13.1.0")
    conda_channel.index(project.channel)
    assert "13.1.0" in project.pinproof("conda", "lock").out
    done = process.run(fill, env=child.environment())
    assert (done.returncode, "is not the lock that this was planned with" in done.output) == (
        4,
        True,
    ), done.output
    assert not (project.root / "env").exists()


def test_an_environment_whose_records_are_gone_is_no_longer_the_one_that_was_compared(
    project: Project,
) -> None:
    project.locked()
    project.pinproof("conda", "install", "cuda-13.0", "--into", "env")
    home = project.root / "env"
    assert conda_environment.check(home) == []
    shutil.rmtree(home / "conda-meta")
    assert any(each.file == "lib/libcudart.so.13" for each in conda_environment.check(home))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("metadata:\n", "<<<<<<< ours\nmetadata:\n", "is no YAML"),
        ("manager: conda", "manager: pip", "was edited"),
        ("version: 1\n", "", "this is no conda-lock file"),
    ],
)
def test_a_lock_that_cannot_be_read_is_not_written_over(
    project: Project, old: str, new: str, told: str
) -> None:
    project.locked()
    damaged = project.lock.read_text().replace(old, new, 1)
    project.lock.write_text(damaged)
    ended = project.pinproof("conda", "lock")
    assert (ended.code, told in ended.err) == (2, True), ended.text
    assert "bring the committed lockfiles/cuda-13.0.conda-lock.yml back" in ended.err
    assert project.lock.read_text() == damaged


def test_a_channel_that_is_gone_does_no_harm_to_what_was_installed_once(
    project: Project,
) -> None:
    project.locked()
    first = project.pinproof("conda", "install", "cuda-13.0", "--into", "one")
    assert first.code == 0, first.text
    project.channel.rename(project.channel.with_name("gone"))
    again = project.pinproof("conda", "install", "cuda-13.0", "--into", "two", "--offline")
    assert again.code == 0, again.text
    assert (project.root / "two" / "share" / "cuda-nvcc.txt").is_file()
    ended = project.pinproof("conda", "install", "cuda-13.0", "--into", "three", "--store", "new")
    assert (ended.code, "cannot be had from" in ended.err) == (4, True), ended.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (None, "lockfiles/cuda-13.0.conda-lock.yml is not there"),
        (("cuda-nvcc\n", "cuda-nvcc2\n"), "was edited"),
        (("version: 1\n", "version: 3\n"), "its schema 3 is not the one that is read here"),
        (("version: 1\n", "version: ["), "is no YAML"),
    ],
)
def test_a_run_is_refused_before_it_begins_where_the_lock_is_missing_or_damaged(
    project: Project, change: tuple[str, str] | None, told: str
) -> None:
    if change is not None:
        project.locked()
        project.lock.write_text(project.lock.read_text().replace(*change, 1))
    ended = project.pinproof("run", "--until", "install")
    assert (ended.code, told in ended.err) == (2, True), ended.text
    assert "next step:" in ended.err


def test_a_specification_that_changed_since_its_lock_is_refused(project: Project) -> None:
    project.locked()
    project.spec.write_text(project.spec.read_text().replace("greeting]", "greeting >=1]"))
    ended = project.pinproof("run", "--until", "install")
    assert (ended.code, "which changed since" in ended.err) == (2, True), ended.text


def test_a_cell_that_asks_for_another_cuda_or_python_than_is_locked_is_not_tried(
    project: Project,
) -> None:
    project.locked()
    text = MATRIX.replace('torch = ["2.13.0"] }', 'torch = ["2.13.0"], cuda = ["13.2"] }')
    (project.root / "matrix.toml").write_text(text.replace("cpu", "sm_120"))
    ended = project.pinproof("run", "--matrix", "small", "--until", "install")
    assert "the cell asks for cuda 13.2; the conda environment cuda-13.0 has cuda-version 13.0" in (
        ended.out
    )
    assert "INCONCLUSIVE" in ended.out


def test_what_was_asked_of_the_solver_is_not_what_this_machine_has(project: Project) -> None:
    project.locked()
    before = lockfile.read(project.lock)
    project.lock.unlink()
    ended = project.pinproof("conda", "lock", CONDA_OVERRIDE_CUDA="11.0")
    assert ended.code == 0, ended.text
    assert lockfile.same(before, lockfile.read(project.lock))


def test_an_executable_that_is_not_there_is_said(project: Project) -> None:
    project.locked()
    words = ("conda", "install", "cuda-13.0", "--into", "env", "--with", "no-such-micromamba")
    ended = project.pinproof(*words)
    assert (ended.code, "is not on the PATH" in ended.err) == (2, True), ended.text


def test_a_package_knows_where_in_the_environment_it_came_from(
    proven: tuple[Project, Ended],
) -> None:
    project, _ = proven
    told = json.loads((project.cell / "conda-meta" / "greeting-1.0-0.json").read_text())
    assert told["sha256"] in {each.sha256 for each in lockfile.read(project.lock).packages}


def test_a_package_that_was_built_again_under_its_name_is_unpacked_again(project: Project) -> None:
    project.locked()
    assert project.pinproof("conda", "install", "cuda-13.0", "--into", "one").code == 0
    again = conda_channel.add(
        project.root / "again",
        "cuda-cudart",
        "13.0.96",
        files={"lib/libcudart.so.13": "other code\n"},
    )
    again.replace(project.channel / "linux-64" / again.name)
    conda_channel.index(project.channel)
    told = project.pinproof("conda", "lock").out
    assert "cuda-cudart 13.0.96 0 has other bytes under the same name" in told
    assert project.pinproof("conda", "install", "cuda-13.0", "--into", "two").code == 0
    found = [
        (project.root / name / "lib" / "libcudart.so.13").read_text() for name in ("one", "two")
    ]
    assert found == ["machine code\n", "other code\n"]


def test_a_wheel_takes_the_place_of_a_conda_package_and_the_others_stay(project: Project) -> None:
    project.locked()
    ended = project.pinproof("conda", "install", "cuda-13.0", "--into", "env")
    assert ended.code == 0, ended.text
    home = project.root / "env"
    tool = installer.installer(offline=True)
    wheel = make_wheel(project.root, "greeting", "2.0", files={"greeting.py": "WORDS = 'wheel'\n"})
    pin = Pin(name="greeting", version="2.0", sha256=sha256(wheel), file=wheel.name)
    lock = Lock(python=conda_channel.VERSION, product=(pin,))
    listing = project.root / "lock.txt"
    listing.write_text(lock.text())
    back_end = conda_environment.Conda(
        environment="cuda-13.0",
        lock=lockfile.read(project.lock),
        path=project.lock,
        packages=project.root / ".pinproof" / "conda",
    )
    fill, wheels = back_end.install(home / "bin" / "python", listing, lock, tool)
    assert "--offline" in fill
    words = [*wheels, "--find-links", str(project.root)]
    subprocess.run(words, env=dict(tool.env), check=True)
    code = "import greeting; print(greeting.WORDS)"
    done = subprocess.run([home / "bin" / "python", "-I", "-c", code], capture_output=True)
    assert done.stdout == b"wheel\n"
    assert (home / conda_channel.SITE / "farewell-1.0.dist-info" / "METADATA").is_file()
    assert conda_environment.check(home) == []
    (home / "lib" / "libcudart.so.13").write_text("edited\n")
    assert [change.file for change in conda_environment.check(home)] == ["lib/libcudart.so.13"]


def test_an_archive_alone_gives_the_conda_packages_back(project: Project) -> None:
    lock = project.locked()
    project.pinproof("conda", "install", "cuda-13.0", "--into", "env")
    archive, cache = project.root / "archive", project.root / ".pinproof" / "conda"
    assert kept.keep(lock.of("linux-64"), cache, archive) == len(lock.packages)
    assert kept.keep(lock.of("linux-64"), cache, archive) == 0, "what is kept is kept"
    project.channel.rename(project.channel.with_name("gone"))
    shutil.rmtree(project.root / ".pinproof")
    words = (project.lock, project.root / "new", cache)
    command = child.command(
        "install", *map(str, words), "--offline", "--from", str(archive / "conda")
    )
    done = process.run(command, env=child.environment())
    assert done.ok, done.output
    assert (project.root / "new" / "lib" / "libcudart.so.13").read_text() == "machine code\n"


def test_a_conda_package_that_is_damaged_or_gone_from_an_archive_is_named_with_its_cells(
    project: Project,
) -> None:
    lock = project.locked()
    project.pinproof("conda", "install", "cuda-13.0", "--into", "env")
    archive = project.root / "archive"
    house = archives._begun(archive)
    kept.keep(lock.of("linux-64"), project.root / ".pinproof" / "conda", archive)
    pins = archive / "pins" / "cpu-123456"
    pins.mkdir(parents=True)
    archives.seal(house, {"cpu-123456": [Path(shutil.copy(project.lock, pins))]})
    assert archives.verify(archive) == []
    first, second, *_ = kept.needed(archive)
    assert all(sha256(path) == digest for path, (digest, _) in kept.needed(archive).items())
    first.write_bytes(b"damaged")
    second.unlink()
    found = {damage.file: (damage.what, damage.cells) for damage in archives.verify(archive)}
    assert found == {
        str(first.relative_to(archive)): ("is not the file that was archived", ("cpu-123456",)),
        str(second.relative_to(archive)): ("is gone", ("cpu-123456",)),
    }
    with pytest.raises(InfrastructureError, match="is not in"):
        kept.keep(lock.of("linux-64"), project.root / "nowhere", archive)


#: The torch of a cell: a wheel that uses a conda package of the environment below it.
TORCH = """
import os, pathlib, sys
import greeting
__version__ = "2.13.0+cpu"
pathlib.Path(os.environ["TOLD"]).write_text(greeting.WORDS + " in " + sys.prefix)
"""


def test_a_stage_of_a_cell_runs_wheels_on_conda_packages_through_nox(project: Project) -> None:
    project.locked()
    told, wheels = project.root / "told", project.root / "wheels"
    make_wheel(wheels, "torch", "2.13.0+cpu", files={"torch/__init__.py": TORCH})
    for name in ("numpy", "pytest", "triton"):
        make_wheel(wheels, name, "99.0")
    text = MATRIX.replace("checks = []", 'checks = ["correctness"]')
    text = text.partition("without =")[0] + f'env = {{ TOLD = "{told}" }}\n'
    (project.root / "matrix.toml").write_text(text)
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    offline["UV_CACHE_DIR"] = str(project.root / "uv")
    ended = project.pinproof("run", "--until", "inspect", **offline)
    log = next(project.root.glob(".pinproof/logs/cpu-*/inspect.log")).read_text()
    assert told.read_text() == f"hello from conda in {project.cell}", ended.text + log
    assert f"nox > Reusing existing conda env at {project.cell}" in log


@pytest.fixture
def served(project: Project) -> Iterator[Project]:
    """The project, with its channel on a server of this machine."""
    handler = functools.partial(Quiet, directory=str(project.channel))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        text = project.spec.read_text().replace(project.channel.as_uri(), address)
        project.spec.write_text(text)
        yield project
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def test_a_channel_on_a_server_is_locked_and_installed_and_a_changed_package_refused(
    served: Project, tmp_path: Path
) -> None:
    caches = {"RATTLER_CACHE_DIR": str(tmp_path / "rattler")}
    ended = served.pinproof("conda", "lock", **caches)
    assert ended.code == 0, ended.text
    assert {each.url.partition("1:")[0] for each in lockfile.read(served.lock).packages} == {
        "http://127.0.0."
    }
    words = ("conda", "install", "cuda-13.0", "--into")
    ended = served.pinproof(*words, "one", **caches)
    assert ended.code == 0, ended.text
    assert (served.root / "one" / "lib" / "libcudart.so.13").is_file()
    other = conda_channel.add(
        served.root / "other", "cuda-cudart", "13.0.96", files={"lib/evil.so": "evil\n"}
    )
    other.replace(served.channel / "linux-64" / other.name)
    ended = served.pinproof(*words, "two", "--store", "new", **caches)
    assert (ended.code, "is not the package of its lock" in ended.err) == (4, True), ended.text
    (served.channel / "linux-64" / other.name).unlink()
    ended = served.pinproof(*words, "two", "--store", "new", **caches)
    assert (ended.code, "cannot be downloaded from http://127.0.0.1" in ended.err) == (4, True)
    assert not (served.root / "two").exists()


def test_a_token_of_a_channel_is_in_no_message(served: Project, tmp_path: Path) -> None:
    caches = {"RATTLER_CACHE_DIR": str(tmp_path / "rattler")}
    assert served.pinproof("conda", "lock", **caches).code == 0
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"127.0.0.1": {"CondaToken": "tk-SECRET"}}))
    caches["RATTLER_AUTH_FILE"] = str(keys)
    # The server knows no /t/: whatever is asked for with the token is not there.
    ended = served.pinproof("conda", "install", "cuda-13.0", "--into", "env", **caches)
    assert (ended.code, "cannot be downloaded from" in ended.err) == (4, True), ended.text
    assert "/t/****/" in ended.err, "rattler names the address that it asked for"
    assert "SECRET" not in ended.text


@pytest.mark.parametrize("damage", ["{", "{}", '{"packages.conda": {"x": 1}}', ""])
def test_a_channel_with_a_broken_index_is_told_and_leaves_the_old_lock(
    project: Project, damage: str
) -> None:
    project.locked()
    before = project.lock.read_bytes()
    for index in (project.channel / "linux-64").glob("repodata*"):
        index.unlink()
    (project.channel / "linux-64" / "repodata.json").write_text(damage)
    ended = project.pinproof("conda", "lock")
    assert ended.code in (2, 4), ended.text
    assert "Traceback" not in ended.text
    assert "envs/cuda-13.0.yml" in ended.err
    assert project.lock.read_bytes() == before


def test_a_wheelhouse_carries_the_conda_packages_to_a_machine_without_a_network(
    project: Project,
) -> None:
    project.locked()
    wheels, house = project.root / "index", project.root / "house"
    make_wheel(wheels, "torch", "2.13.0+cpu")
    for name in ("numpy", "pytest", "triton"):
        make_wheel(wheels, name, "99.0")
    (project.root / "matrix.toml").write_text(MATRIX.partition("[[matrix.overrides]]")[0])
    index = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    code = """
from pathlib import Path
from pinproof.locks import collect
order = collect.Order(
    matrix_file=Path("matrix.toml"), matrix="small", out=Path("house"),
    python="3.99", platform=collect.this_platform(),
)
collect.make(order)
"""
    done = project.python("-c", code, UV_CACHE_DIR=str(project.root / "uv"), **index)
    assert done.code == 0, done.text
    project.channel.rename(project.channel.with_name("gone"))
    wheels.rename(wheels.with_name("gone-too"))
    nothing = {"PIP_CONFIG_FILE": os.devnull, "UV_CACHE_DIR": str(project.root / "uv-2")}
    words = ("run", "--until", "install", "--offline", "--wheelhouse", str(house))
    ended = project.pinproof(*words, **nothing)
    assert "ok cpu-" in ended.out, ended.text
    assert (project.cell / "lib" / "libcudart.so.13").is_file()
    assert (project.cell / conda_channel.SITE / "torch.py").is_file()
