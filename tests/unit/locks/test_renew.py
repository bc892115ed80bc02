"""Tests of making locks: real wheels from a real index on loopback, solved by the real uv."""

import json
import os
from datetime import date

import pytest
from nightly_index import NightlyIndex, ninety_days, served, torch_of
from wheels import make_index, make_wheel

from pinproof import cli
from pinproof.locks import lockfile

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

    def index(self):
        number = sum(1 for _ in self.root.glob("simple*"))
        address = make_index(self.root / f"simple{number}", self.releases)
        self.monkeypatch.setenv("UV_DEFAULT_INDEX", address)

    def nightly(self, address):
        self.monkeypatch.setenv("PINPROOF_NIGHTLY_INDEX", address)

    def matrix(self, torch, more=""):
        (self.root / "matrix.toml").write_text(MATRIX.format(torch=torch) + more)

    def lock(self, *words):
        """Run the verb; return its exit code and everything that it said."""
        with pytest.raises(SystemExit) as ended:
            cli.main(["lock", *words])
        said = self.capsys.readouterr()
        return ended.value.code, said.out + said.err

    def document(self, *words):
        code, said = self.lock("--json", *words)
        return code, json.loads(said[said.index("{") :])

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
