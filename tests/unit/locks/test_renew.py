"""Tests of making locks: real wheels from a real index on loopback, solved by the real uv."""

import json
import os
import subprocess
from datetime import date

import pytest
from nightly_index import NightlyIndex, ninety_days, served, torch_of
from wheels import make_index, make_wheel

from pinproof import cli
from pinproof.locks import collect, lockfile

MATRIX = """format = 1
[targets.sm_120]
[[matrix]]
name = "n"
target = "sm_120"
axes = {{ torch = [{torch}], cuda = ["13.0"] }}
"""


class World:
    """A project with a matrix, a release index on disk, and a nightly index on loopback."""

    def __init__(self, root, monkeypatch, capsys):
        self.root, self.capsys, self.monkeypatch = root, capsys, monkeypatch
        self.releases = []
        for name, version in (("numpy", "2.3.0"), ("pytest", "9.0.0"), ("triton", "3.5.0")):
            self.release(name, version)
        self.release("torch", "2.16.0")
        self.matrix('"nightly"')
        for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("UV_CACHE_DIR", str(root / "cache"))
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        monkeypatch.setenv("PINPROOF_ROOT", str(root))
        self.index()

    def release(self, name, version, **more):
        self.releases.append(make_wheel(self.root / "files", name, version, **more))

    def remove(self, name):
        self.releases = [each for each in self.releases if not each.name.startswith(f"{name}-")]

    def hold_release(self):
        """Let the index hold torch 2.16.0 with its runtime, and no other torch."""
        self.remove("torch")
        self.release("torch", "2.16.0", requires=["nvidia-cuda-runtime"])
        self.release("nvidia-cuda-runtime", "13.0.88")
        self.index()

    def index(self):
        number = sum(1 for _ in self.root.glob("simple*"))
        address = make_index(self.root / f"simple{number}", self.releases)
        self.monkeypatch.setenv("PIP_INDEX_URL", address)

    def nightly(self, address):
        self.monkeypatch.setenv("PINPROOF_NIGHTLY_INDEX", address)

    def matrix(self, torch, more=""):
        (self.root / "matrix.toml").write_text(MATRIX.format(torch=torch) + more)

    def lock(self, *words):
        """Run the verb; return its exit code and everything that it said."""
        return self.pinproof("lock", *words)

    def pinproof(self, *words):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        said = self.capsys.readouterr()
        return ended.value.code, said.out + said.err

    def document(self, *words):
        code, said = self.lock("--json", *words)
        return code, json.JSONDecoder().raw_decode(said[said.index("{") :])[0]

    @property
    def file(self):
        return lockfile.load(self.root / "lockfiles" / "n.lock.toml")

    @property
    def text(self):
        return (self.root / "lockfiles" / "n.lock.toml").read_bytes()

    def torch(self):
        """Return the locked torch of every cell."""
        found = self.file
        return [found.locks[entry.file].version("torch") for entry in found.entries]


@pytest.fixture
def world(tmp_path, monkeypatch, capsys):
    return World(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def nightlies(tmp_path_factory):
    root = tmp_path_factory.mktemp("nightlies")
    ninety_days(root)
    with served(root) as address:
        yield address


def day(number):
    return date(2026, 11, number)


def test_nightlies_become_the_wheels_of_their_days_and_gaps_are_told(world, nightlies):
    world.nightly(nightlies)
    world.matrix('"nightly", "nightly-3", "nightly@2026-11-18"')
    code, said = world.lock("--matrix", "n")
    assert code == 0, said
    assert world.torch() == [torch_of(day(23)), torch_of(day(17)), torch_of(day(18))]
    values = {each.asked: each for each in world.file.values}
    fixed = values["nightly-3"]
    assert (fixed.index, fixed.url.rpartition("/")[0]) == ("nightly/cu130", "cu130")
    assert "2026-11-22 (nothing was published)" in fixed.notes[0]
    assert "2026-11-21 (no wheel for Python 3.11" in fixed.notes[0]
    assert "2026-11-19 (no wheel for Python 3.11" in fixed.notes[0]
    lock = next(iter(world.file.locks.values()))
    pin = next(pin for pin in lock.pins if pin.name == "torch")
    assert pin.sha256 in {each.sha256 for each in values.values()}
    assert lock.version("triton").startswith("3.10.0+git")
    assert "127.0.0.1" not in world.text.decode() + lock.text()


def test_a_lock_that_was_made_holds_and_one_whose_nightly_moved_is_stale(world, tmp_path):
    index = NightlyIndex(tmp_path / "nightly")
    index.add_day(day(20))
    index.write()
    with served(index.root) as address:
        world.nightly(address)
        assert world.lock("--matrix", "n")[0] == 0
        before = world.text
        assert world.lock("--check")[0] == 0
        index.add_day(day(21))
        index.write()
        code, said = world.lock("--check")
        assert code == 5
        assert f"torch nightly (cu130, 3.11): {torch_of(day(20))}" in said
        assert f"-> {torch_of(day(21))}" in said
        assert world.text == before
        assert world.lock("--axis", "torch")[0] == 0
        assert world.torch() == [torch_of(day(21))]


def test_a_day_that_is_missing_is_an_error_that_names_the_nearest_and_keeps_the_old_lock(
    world, nightlies
):
    world.nightly(nightlies)
    assert world.lock("--matrix", "n")[0] == 0
    before = world.text
    world.matrix('"nightly@2026-11-22"')
    code, said = world.lock("--matrix", "n")
    assert code == 4
    assert "there is no nightly of that day for cu130, Python 3.11" in said
    assert "name torch nightly@2026-11-20 or torch nightly@2026-11-23" in said
    assert world.text == before


def test_a_nightly_of_a_day_that_has_left_the_index_makes_a_lock_stale(world, tmp_path):
    index = NightlyIndex(tmp_path / "nightly")
    for number in (19, 20):
        index.add_day(day(number))
    index.write()
    world.matrix('"nightly@2026-11-19"')
    with served(index.root) as address:
        world.nightly(address)
        assert world.lock("--matrix", "n")[0] == 0
        for links in index.links.values():
            links.pop(0)
        index.write()
        code, said = world.lock("--check")
    assert code == 5
    assert "there is no nightly of that day" in said
    assert "it has left the index" in said


def test_a_missing_torchvision_is_noted_and_a_missing_triton_passes_the_day_over(world, tmp_path):
    index = NightlyIndex(tmp_path / "nightly")
    index.add_day(day(19))
    index.add_day(day(20), vision=False)
    index.add("cu130", "torch", torch_of(day(21)), requires=["triton==3.11.0+gitlost"])
    index.write()
    with served(index.root) as address:
        world.nightly(address)
        code, said = world.lock("--matrix", "n")
    assert code == 0, said
    assert world.torch() == [torch_of(day(20))]
    assert "2026-11-21 (it wants triton==3.11.0+gitlost, which the index has not)" in said
    assert f"torch {torch_of(day(20))}: no torchvision of that day" in said


def test_each_build_has_its_own_nightlies(world, nightlies):
    world.nightly(nightlies)
    world.matrix('"nightly"')
    text = (world.root / "matrix.toml").read_text()
    (world.root / "matrix.toml").write_text(
        text.replace('"13.0"', '"12.6", "13.0"').replace("sm_120", "sm_90")
    )
    code, said = world.lock("--matrix", "n")
    assert code == 0, said
    assert world.torch() == [torch_of(day(23), "cu126"), torch_of(day(23))]
    assert {each.index for each in world.file.values} == {"nightly/cu126", "nightly/cu130"}


def test_another_python_and_platform_are_locked_beside_the_first(world, nightlies):
    world.nightly(nightlies)
    assert world.lock("--matrix", "n")[0] == 0
    words = ("--python", "3.12", "--platform", "x86_64-manylinux_2_28")
    code, said = world.lock("--matrix", "n", *words)
    assert code == 0, said
    assert world.torch() == [torch_of(day(21)), torch_of(day(23))]
    assert [python for python, _ in world.file.targets] == ["3.11", "3.12"]
    assert world.lock("--check")[0] == 0


def test_two_platforms_of_one_machine_are_locked_and_checked_side_by_side(world, tmp_path):
    index = NightlyIndex(tmp_path / "nightly")
    index.add_day(day(20))
    index.add_day(day(21), tag="cp311-cp311-manylinux_2_35_x86_64")
    index.write()
    python = ("--python", "3.11", "--platform")
    with served(index.root) as address:
        world.nightly(address)
        for platform in ("x86_64-manylinux_2_28", "x86_64-manylinux_2_35"):
            code, said = world.lock("--matrix", "n", *python, platform)
            assert code == 0, said
        assert world.torch() == [torch_of(day(21)), torch_of(day(20))]
        code, said = world.lock("--check")
        assert code == 0, said
        index.add_day(day(22), tag="cp311-cp311-manylinux_2_35_x86_64")
        index.write()
        code, said = world.lock("--check")
        assert code == 5, said
        assert said.count(" -> ") == 1


def test_a_cell_with_a_python_of_its_own_that_cannot_be_locked_any_more_leaves_the_lock(world):
    world.hold_release()
    text = MATRIX.format(torch='"2.16.0"').replace("cuda =", 'python = ["3.11", "3.12"], cuda =')
    (world.root / "matrix.toml").write_text(text)
    code, said = world.lock("--matrix", "n", "--python", "3.11")
    assert code == 0, said
    assert [each.python for each in world.file.entries] == ["3.11", "3.12"]
    system = '[[matrix.overrides]]\nselect = \'python == "3.12"\'\nbackend = "system"\n'
    (world.root / "matrix.toml").write_text(text + system)
    assert world.lock("--check")[0] == 5
    code, said = world.lock("--matrix", "n")
    assert code == 0, said
    assert [each.python for each in world.file.entries] == ["3.11"]
    code, said = world.lock("--check")
    assert code == 0, said


def test_a_nightly_of_an_index_that_asks_for_a_password_is_locked_without_it(world, tmp_path):
    index = NightlyIndex(tmp_path / "nightly")
    index.add_day(day(20))
    index.write()
    with served(index.root, user="me:secret") as address:
        world.nightly(address.replace("//", "//me:secret@"))
        code, said = world.lock("--matrix", "n")
        assert code == 0, said
    assert world.torch() == [torch_of(day(20))]
    assert "secret" not in said + world.text.decode()


def broken(root, address):
    page = root / "cu130" / "torch" / "index.html"
    page.write_text(page.read_text()[:-30])
    return address


def unreachable(root, address):
    return "http://user:secret@127.0.0.1:9/nightly"


def empty(root, address):
    return f"{address}/other"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (broken, ["cannot be understood", "cut off", "run again in a while"]),
        (unreachable, ["cannot be read", "****@127.0.0.1", "check the network"]),
        (empty, ["the nightly index has no torch of the build cu130"]),
    ],
)
def test_a_nightly_index_that_does_not_answer_keeps_the_old_lock(world, tmp_path, harm, words):
    index = NightlyIndex(tmp_path / "nightly")
    index.add_day(day(20))
    index.write()
    with served(index.root) as address:
        world.nightly(address)
        assert world.lock("--matrix", "n")[0] == 0
        before = world.text
        world.nightly(harm(index.root, address))
        for more in ((), ("--check",)):
            code, said = world.lock("--matrix", "n", *more)
            assert code == 4, said
            assert all(word in said for word in words), said
            assert "secret" not in said
    assert world.text == before


def test_without_a_place_for_nightlies_the_three_ways_to_name_one_are_told(world):
    code, said = world.lock("--matrix", "n")
    assert code == 2
    assert "PINPROOF_NIGHTLY_INDEX" in said
    assert "[indexes]" in said
    assert "extra-index-url" in said


def test_the_place_comes_from_the_matrix_file_or_from_pip_s_configuration(
    world, nightlies, monkeypatch, tmp_path
):
    world.matrix('"nightly"', f'[indexes]\nnightly = "{nightlies}"\n')
    assert world.lock("--matrix", "n")[0] == 0
    world.matrix('"nightly-3"')
    pip = tmp_path / "pip.conf"
    (tmp_path / "nightly").symlink_to("/")
    pip.write_text(f"[global]\nextra-index-url = {nightlies}/nightly/cu130\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(pip))
    code, said = world.lock("--matrix", "n")
    assert code == 4  # it looked there, and the index of this test has no such page
    assert "the nightly index has no torch" in said


def test_a_lock_whose_release_has_left_the_index_is_stale(world):
    world.matrix('"2.16.0"')
    world.hold_release()
    code, said = world.lock("--matrix", "n")
    assert code == 0, said
    assert world.lock("--check")[0] == 0
    before = world.text
    world.remove("nvidia_cuda_runtime")
    world.release("nvidia-cuda-runtime", "13.0.96")
    world.index()
    code, said = world.lock("--check")
    assert code == 5
    assert "nvidia-cuda-runtime: 13.0.88 -> 13.0.96" in said
    assert world.text == before


def test_a_newer_release_of_what_floats_does_not_make_a_lock_stale(world):
    world.matrix('"2.16.0"')
    world.hold_release()
    assert world.lock("--matrix", "n")[0] == 0
    world.release("numpy", "2.4.0")
    world.index()
    assert world.lock("--check")[0] == 0
    _, document = world.document("--matrix", "n")
    assert document["matrices"][0]["changes"] == [
        {"what": "numpy of 1 cell", "old": "2.3.0", "new": "2.4.0"}
    ]


def test_what_no_versions_fit_is_recorded_with_the_axes_that_it_is_between(world):
    world.release("vllm", "0.30.0", requires=["torch==2.15.0"])
    world.hold_release()
    text = MATRIX.format(torch='"2.16.0"').replace(" }", ', vllm = ["0.30.0", "none"] }')
    (world.root / "matrix.toml").write_text(text.replace("sm_120", "sm_90"))
    code, document = world.document("--matrix", "n")
    assert code == 0
    (conflict,) = document["matrices"][0]["conflicts"].values()
    assert conflict.startswith("torch 2.16.0 and vllm 0.30.0 do not go together: Because")
    assert document["matrices"][0]["locked"] == 1
    assert world.lock("--check")[0] == 0
    world.remove("vllm")
    world.release("vllm", "0.30.0", files={"vllm.py": "fits now"})
    world.index()
    code, said = world.lock("--check")
    assert code == 5
    assert "versions did not fit -> they fit now" in said


def test_a_release_that_was_withdrawn_since_makes_a_lock_stale(world):
    world.matrix('"2.16.0"')
    world.hold_release()
    assert world.lock("--matrix", "n")[0] == 0
    world.release("numpy", "2.4.0")
    world.index()
    page = max(world.root.glob("simple*/numpy/index.html"))
    page.write_text(page.read_text().replace("<a ", '<a data-yanked="wrong sums" ', 1))
    code, said = world.lock("--check")
    assert code == 5, said
    assert "numpy==2.3.0: locked -> withdrawn (yanked)" in said


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def vllm_at(index, commit, version, build="cu130"):
    index.add(
        f"{commit}/{build}", "vllm", version, tag="cp38-abi3-manylinux_2_28_x86_64", metadata=False
    )


def vllm_world(world, tmp_path, monkeypatch, text):
    """A matrix whose vLLM is `text`, with a release of it on the package index."""
    world.release("vllm", "0.40.0")
    world.release("torch", "2.17.0", requires=["nvidia-cuda-runtime"])
    world.release("nvidia-cuda-runtime", "13.0.88")
    world.index()
    matrix = MATRIX.format(torch='"2.17.0"').replace(" }", f', vllm = ["{text}"] }}')
    (world.root / "matrix.toml").write_text(matrix.replace("sm_120", "sm_90"))
    index = NightlyIndex(tmp_path / "vllm")
    vllm_at(index, COMMIT, "0.33.1.dev5+g012345678")
    index.write()
    return index


def test_a_commit_of_vllm_is_the_wheel_of_its_own_index_and_never_a_release(
    world, tmp_path, monkeypatch
):
    index = vllm_world(world, tmp_path, monkeypatch, f"git:{COMMIT}")
    with served(index.root) as address:
        monkeypatch.setenv("PINPROOF_VLLM_INDEX", address)
        code, said = world.lock("--matrix", "n")
        assert code == 0, said
        (value,) = world.file.values
        assert (value.commit, value.version) == (COMMIT, "0.33.1.dev5+g012345678")
        assert value.index == f"vllm/{COMMIT}/cu130"
        (lock,) = world.file.locks.values()
        assert lock.version("vllm") == "0.33.1.dev5+g012345678"
        assert lock.indexes == (f"vllm/{COMMIT}/cu130",)
        assert world.lock("--check")[0] == 0


def test_a_commit_of_vllm_without_a_wheel_needs_its_source_to_be_locked(
    world, tmp_path, monkeypatch
):
    index = vllm_world(world, tmp_path, monkeypatch, f"git+file://{tmp_path}/none@{COMMIT[::-1]}")
    with served(index.root) as address:
        monkeypatch.setenv("PINPROOF_VLLM_INDEX", address)
        code, said = world.lock("--matrix", "n")
    assert code == 4
    assert "cannot be fetched" in said
    assert not (world.root / "lockfiles").exists()


def test_the_nightly_of_vllm_is_kept_under_the_commit_that_it_was(world, tmp_path, monkeypatch):
    index = vllm_world(world, tmp_path, monkeypatch, "nightly")
    page = index.root / "nightly" / "cu130" / "vllm" / "index.html"
    page.parent.mkdir(parents=True)
    (link,) = index.links[f"{COMMIT}/cu130", "vllm"]
    page.write_text(f"<html>{link.replace('../', f'../../../{COMMIT}/cu130/')}</html>")
    with served(index.root) as address:
        monkeypatch.setenv("PINPROOF_VLLM_INDEX", address)
        code, said = world.lock("--matrix", "n")
        assert code == 0, said
        (value,) = world.file.values
        assert (value.index, value.commit) == (f"vllm/{COMMIT}/cu130", COMMIT)
        assert value.url.startswith(f"{COMMIT}/cu130/vllm-0.33.1")
        code, said = world.lock("--matrix", "n", "--axis", "vllm")
        assert code == 0, said


def test_branches_become_full_commits_and_a_branch_that_moved_makes_the_lock_stale(world, tmp_path):
    repository = tmp_path / "repository"

    def git(*words):
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@a.example", *words],
            cwd=repository,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    repository.mkdir()
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "one")
    first = git("rev-parse", "HEAD")
    world.release("einops", "0.8.1")
    world.remove("torch")
    world.release("torch", "2.13.0", requires=["nvidia-cuda-runtime"])
    world.release("nvidia-cuda-runtime", "13.0.88")
    world.index()
    text = MATRIX.format(torch='"2.13.0"')
    flash = f', flash-attn = ["git+{repository.as_uri()}@main"] }}'
    (world.root / "matrix.toml").write_text(text.replace(" }", flash))
    code, said = world.lock("--matrix", "n")
    assert code == 0, said
    assert [each.commit for each in world.file.values] == [first]
    git("commit", "-q", "--allow-empty", "-m", "two")
    second = git("rev-parse", "HEAD")
    code, said = world.lock("--check")
    assert code == 5
    assert f"{first} -> {second}" in said
    assert world.lock("--axis", "torch")[0] == 0
    assert [each.commit for each in world.file.values] == [first]
    assert world.lock("--axis", "flash-attn")[0] == 0
    assert [each.commit for each in world.file.values] == [second]


def test_a_range_is_recorded_as_the_release_that_it_came_to(world):
    world.matrix('">=2.15,<2.18"')
    world.hold_release()
    code, said = world.lock("--matrix", "n")
    assert code == 0, said
    (value,) = world.file.values
    assert (value.asked, value.version, value.index) == (">=2.15,<2.18", "2.16.0", "")
    world.release("torch", "2.17.0", requires=["nvidia-cuda-runtime"])
    world.index()
    code, said = world.lock("--check")
    assert code == 5
    assert "torch >=2.15,<2.18: 2.16.0 -> 2.17.0" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--matrix", "m"), "there is no matrix 'm'"),
        (("--axis", "toch"), "Did you mean 'torch'?"),
        (("--cell", "cpu-000000"), "there is no cell 'cpu-000000'"),
        (("--check",), "no matrix of matrix.toml has a lock"),
        (("--check", "--matrix", "n"), "n has no lock"),
        (("--matrix", "n", "--platform", "win32"), "no platform that wheels can be chosen for"),
    ],
)
def test_a_wrong_option_is_told_with_a_way_out(world, words, told):
    code, said = world.lock(*words)
    assert code == 2
    assert told in said
    assert "next step" in said


def test_a_run_installs_the_nightly_of_the_lock_and_says_where_the_lock_no_longer_fits(
    world, tmp_path
):
    index = NightlyIndex(tmp_path / "nightly")
    index.add_day(day(19), "cpu")
    index.write()
    text = MATRIX.replace("sm_120", "cpu").replace(', cuda = ["13.0"]', "")
    (world.root / "matrix.toml").write_text(text.format(torch='"nightly"'))
    with served(index.root) as address:
        world.nightly(address)
        code, said = world.lock("--matrix", "n")
        assert code == 0, said
        index.add_day(day(20), "cpu")
        index.write()
        run = ("run", "--matrix", "n", "--until", "install", "-j", "1")
        code, said = world.pinproof(*run)
        assert code == 3, said  # nothing was called, as nothing was asked for
        assert "1 of 1 cells" in said
        (installed,) = world.root.glob(".nox/*/lib/python*/site-packages/torch-*.dist-info")
        assert installed.name == f"torch-{torch_of(day(19), 'cpu')}.dist-info"
        _, said = world.pinproof(*run)
        assert "cached" in said
        assert " start " not in said
        (world.root / "matrix.toml").write_text(
            text.format(torch='"nightly"')
            + "[[matrix.overrides]]\nselect = 'target == \"cpu\"'\nrequirements = ['numpy<3']\n"
        )
        _, said = world.pinproof(*run, "--dry-run")
        assert "0 of 1 cells" in said
        assert "renew it: nox -s lock -- --matrix n" in said


def test_a_nightly_that_left_its_index_is_installed_from_the_wheelhouse_of_its_lock(
    world, tmp_path
):
    index = NightlyIndex(tmp_path / "nightly")
    for number in (18, 19):
        index.add_day(day(number), "cpu")
    index.write()
    text = MATRIX.replace("sm_120", "cpu").replace(', cuda = ["13.0"]', "")
    (world.root / "matrix.toml").write_text(text.format(torch='"nightly-1"'))
    with served(index.root) as address:
        world.nightly(address)
        assert world.lock("--matrix", "n")[0] == 0
        target = world.file.targets[0]
        order = collect.Order(
            matrix_file=world.root / "matrix.toml",
            matrix="n",
            out=tmp_path / "house",
            python=target[0],
            platform=target[1],
        )
        house = collect.make(order)
    assert torch_of(day(18), "cpu") in " ".join(wheel.file for wheel in house.wheels)
    world.monkeypatch.delenv("PINPROOF_NIGHTLY_INDEX")
    words = ("--matrix", "n", "--until", "install", "--offline", "--wheelhouse", str(order.out))
    code, said = world.pinproof("run", *words)
    assert code == 3, said
    (installed,) = world.root.glob(".nox/*/lib/python*/site-packages/torch-*.dist-info")
    assert installed.name == f"torch-{torch_of(day(18), 'cpu')}.dist-info"


def test_a_run_without_a_lock_says_that_an_older_nightly_needs_one(world):
    world.matrix('"nightly-3"')
    _, said = world.pinproof("run", "--matrix", "n", "--until", "resolve")
    assert "torch nightly-3 cannot be resolved as it stands" in said


def test_a_lock_for_another_python_alone_is_not_used_and_says_for_whom_it_is(world):
    world.matrix('"2.16.0"')
    world.hold_release()
    words = ("--python", "3.14", "--platform", "x86_64-manylinux_2_28")
    assert world.lock("--matrix", "n", *words)[0] == 0
    _, said = world.pinproof("run", "--matrix", "n", "--dry-run")
    assert "not used, it is for Python 3.14 on x86_64-manylinux_2_28" in said
