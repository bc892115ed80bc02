"""A nightly leaves its index, and its cell is made again from the archive alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import judged
import pytest
from nightly_index import NightlyIndex, served, torch_of
from wheels import make_wheel

from pinproof import cli, takeaway, workflow
from pinproof.builds.cache import Cache, Record
from pinproof.errors import (
    ConfigurationError,
    ExitCode,
    InfrastructureError,
    UnsafePinError,
)
from pinproof.evidence.evidence import Outcome, digest_of
from pinproof.evidence.store import Store, sha256
from pinproof.judge.verdict import Verdict
from pinproof.locks import archive as archives
from pinproof.locks.installer import installer
from pinproof.options import Options
from pinproof.plan import recipe
from pinproof.plan.stage import Stage
from pinproof.run.machine import this_machine

NIGHTLY = "2.15.0.dev20261001"
MATRIX = f"""
format = 1
[targets.cpu]
[[matrix]]
name = "tiny"
target = "cpu"
default = true
checks = ["correctness", "throughput"]
axes = {{ torch = ["{NIGHTLY}+cpu", "2.14.0+cpu"], triton = ["bundled"] }}
"""


@dataclass
class World:
    """A project, and the only index that it knows: pages on loopback over real wheels."""

    home: Path
    address: str
    store: str = "first"

    @property
    def options(self) -> Options:
        place = self.home / self.store / ".pinproof"
        return Options(matrix_file=self.home / "matrix.toml", store=place)

    @property
    def archive(self) -> Path:
        return self.home / "archive"

    def drop(self, pattern: str) -> None:
        """Take files out of the index, as an index of nightlies does after some weeks."""
        for file in self.home.glob(f"simple/*/{pattern}"):
            file.unlink()

    def prove(self, version: str, **more: object) -> str:
        """Install a cell for real, and write down that it passed all else; return its id."""
        cells = {
            dict(row.cell.axes)["torch"]: row.cell.id for row in workflow.recall(self.options).rows
        }
        cell = cells[version]
        asked = replace(self.options, cells=(cell,), **more)  # type: ignore[arg-type]
        install = replace(asked, until=Stage.INSTALL)
        proof = workflow.run(install, io.StringIO())
        assert proof.rows[0].evidence[Stage.INSTALL].outcome is Outcome.OK, proof.rows[0]
        work = proof.works[cell]
        assert work.lock is not None
        (torch,) = (pin for pin in work.lock.product if pin.name == "torch")
        passed = judged.whole(
            inspect=judged.inspect("torch-cpu-flash", torch={"version": torch.version})
        )
        for stage, owner, inputs, _ in recipe.everything(work, this_machine()).stages:
            if stage.measures:
                assert inputs is not None
                record = replace(passed[stage], cell=owner, inputs=inputs, digest=digest_of(inputs))
                Store(asked.store).save(record)
        (row,) = workflow.recall(asked).rows
        assert row.judgement.verdict is Verdict.SAFE, row.judgement
        return cell

    def again(self, cell: str, name: str) -> workflow.Proof:
        """Make the environment of a cell on another machine: no index, no cache, no evidence."""
        other = replace(
            replace(self, store=name).options,
            cells=(cell,),
            until=Stage.INSTALL,
            offline=True,
            wheelhouse=self.archive,
        )
        return workflow.run(other, io.StringIO())

    def version(self, cell: str, name: str) -> str:
        """Return what the torch of an environment says that it is."""
        python = self.home / name / ".nox" / cell / "bin" / "python"
        code = "import torch; print(torch.VERSION)"
        done = subprocess.run(
            [python, "-I", "-c", code], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("torch", "numpy", "pytest", "triton", "lib"):
        (tmp_path / "simple" / name).mkdir(parents=True)
    for version in (f"{NIGHTLY}+cpu", "2.14.0+cpu"):
        make_wheel(tmp_path / "simple/torch", "torch", version, requires=["lib"])
    for name in ("numpy", "pytest", "triton", "lib"):
        make_wheel(tmp_path / "simple" / name, name, "99.0")
    (tmp_path / "matrix.toml").write_text(MATRIX)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    # What Pinproof itself needs is not in this index.
    monkeypatch.setattr(takeaway, "PYPROJECT", tmp_path / "none")
    with served(tmp_path) as address:
        config.write_text(f"[global]\nindex-url = {address}/simple\nno-cache-dir = true\n")
        yield World(tmp_path, address)


def put(world: World, *cells: str, **more: object) -> None:
    """Archive cells."""
    takeaway.archive(replace(world.options, cells=cells, **more), world.archive)  # type: ignore[arg-type]


def test_a_nightly_that_left_its_index_is_installed_again_from_the_archive_alone(
    world: World,
) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    put(world, cell)
    world.drop("*dev*.whl")
    shutil.rmtree(world.home / "cache")
    lost = workflow.run(
        replace(replace(world, store="without").options, cells=(cell,)), io.StringIO()
    )
    assert lost.rows[0].evidence[Stage.RESOLVE].outcome is not Outcome.OK
    proof = world.again(cell, "second")
    assert proof.rows[0].evidence[Stage.INSTALL].outcome is Outcome.OK, proof.rows[0]
    assert world.version(cell, "second") == f"{NIGHTLY}+cpu"
    first = Store(world.options.store).latest(cell, Stage.INSTALL)
    assert first is not None
    # The very same files, by sha256: what was proven of them still stands.
    assert proof.rows[0].evidence[Stage.INSTALL].digest == first.digest


def test_what_nightly_stood_for_is_known_to_the_archive_and_needs_no_lock_of_a_matrix(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.home / "matrix.toml").write_text(
        MATRIX.replace(f'"{NIGHTLY}+cpu", "2.14.0+cpu"', '"nightly", "nightly-1"')
    )
    index, day = NightlyIndex(world.home / "nightly"), date(2026, 10, 1)
    tag = "cp{0}{1}-cp{0}{1}-manylinux_2_28_x86_64".format(*sys.version_info[:2])
    for number in range(2):
        index.add_day(day + timedelta(days=number), "cpu", tag=tag)
    index.write()
    monkeypatch.setenv("PINPROOF_NIGHTLY_INDEX", f"{world.address}/nightly")
    monkeypatch.setenv("PINPROOF_ROOT", str(world.home))
    with pytest.raises(SystemExit) as ended:
        cli.main(["lock", "--matrix", "tiny"])
    assert ended.value.code == 0
    cells = world.prove("nightly-1"), world.prove("nightly")
    put(world, *cells)
    # All that knew the day is gone, and so is the index.
    shutil.rmtree(world.home / "lockfiles")
    shutil.rmtree(world.home / "nightly")
    shutil.rmtree(world.home / "cache")
    monkeypatch.delenv("PINPROOF_NIGHTLY_INDEX")
    for number, cell in enumerate(cells):
        proof = world.again(cell, "second")
        assert proof.rows[0].evidence[Stage.INSTALL].outcome is Outcome.OK, proof.rows[0]
        assert world.version(cell, "second") == torch_of(day + timedelta(days=number), "cpu")
    assert "127.0.0.1" not in (world.archive / "wheelhouse.json").read_text()


def test_the_archive_holds_every_file_with_its_checksum_and_the_pins_of_the_cell(
    world: World,
) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    (world.archive / "lost+found").mkdir(parents=True)  # a disk of its own, and empty
    put(world, cell)
    manifest = json.loads((world.archive / "wheelhouse.json").read_text())
    files = {each["file"]: each for each in manifest["files"]}
    assert {file.partition("-")[0] for file in files} == {
        *("torch", "lib", "numpy", "pytest", "triton")
    }
    for file, known in files.items():
        assert sha256(world.archive / file) == known["sha256"]
        assert known["cells"] == [cell]
    assert (
        f"torch=={NIGHTLY}+cpu" in (world.archive / "pins" / cell / "constraints.txt").read_text()
    )


def test_a_second_cell_adds_only_what_is_missing(world: World) -> None:
    first, second = world.prove(f"{NIGHTLY}+cpu"), world.prove("2.14.0+cpu")
    put(world, first)
    before = {file: file.stat().st_mtime_ns for file in world.archive.glob("*.whl")}
    told: list[str] = []
    options = replace(world.options, cells=(first, second))
    takeaway.archive(options, world.archive, lambda text, done, total: told.append(text))
    assert "fetch 1 wheels" in told
    after = {file: file.stat().st_mtime_ns for file in world.archive.glob("*.whl")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    world.drop("*.whl")
    put(world, first)  # all of it lies there: nothing is asked for


def test_a_cell_that_is_not_safe_is_refused_and_nothing_is_fetched(world: World) -> None:
    safe = world.prove("2.14.0+cpu")
    other = next(row.cell.id for row in workflow.recall(world.options).rows if row.cell.id != safe)
    with pytest.raises(UnsafePinError, match="so it is not archived"):
        put(world, safe, other)
    assert not world.archive.exists()


def test_a_file_that_rotted_in_the_archive_is_named(world: World) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    put(world, cell)
    assert archives.verify(world.archive) == []
    file = next(world.archive.glob("torch-*.whl"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of the same size
    (damage,) = archives.verify(world.archive)
    assert (damage.file, damage.cells) == (file.name, (cell,))
    world.drop("*dev*.whl")
    with pytest.raises(InfrastructureError, match="could not fetch") as caught:
        put(world, cell)
    assert file.name in caught.value.cause


def test_a_file_that_rotted_is_fetched_again_while_the_index_has_it(world: World) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    put(world, cell)
    next(world.archive.glob("torch-*.whl")).write_bytes(b"rot")
    put(world, cell)
    assert archives.verify(world.archive) == []


def test_a_rotted_archive_never_counts_against_the_combination(world: World) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    put(world, cell)
    file = next(world.archive.glob("torch-*.whl"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    shutil.rmtree(world.home / "cache")
    (row,) = world.again(cell, "second").rows
    assert row.judgement.verdict is Verdict.INCONCLUSIVE, row.judgement
    assert file.name in row.judgement.reason, row.judgement


def test_a_nightly_that_left_its_index_never_counts_against_the_combination(world: World) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    world.drop("*dev*.whl")
    shutil.rmtree(world.home / "cache")
    # Another machine that knows the lock, and nothing else.
    other = replace(world, store="second").options
    shutil.copytree(world.options.store, other.store, ignore=shutil.ignore_patterns("cpu-*"))
    (row,) = workflow.run(replace(other, cells=(cell,)), io.StringIO()).rows
    assert row.evidence[Stage.RESOLVE].outcome is Outcome.OK
    assert row.judgement.verdict is Verdict.INCONCLUSIVE, row.judgement


def test_an_archive_can_be_made_from_another_wheelhouse_without_an_index(world: World) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    put(world, cell)
    world.drop("*.whl")
    copy = world.home / "copy"
    options = replace(world.options, cells=(cell,), wheelhouse=world.archive, offline=True)
    takeaway.archive(options, copy)
    assert archives.verify(copy) == []


def test_a_directory_that_is_no_archive_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigurationError, match="no wheelhouse"):
        archives.verify(tmp_path / "other")


def test_what_is_missing_beside_the_wheels_or_too_much_is_named(world: World) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")
    put(world, cell)
    pins = world.archive / "pins" / cell
    (pins / "PINS.md").write_text("rot")
    (pins / "constraints.txt").unlink()
    (world.archive / "torch-0-py3-none-any.whl").write_bytes(b"")
    found = {each.file: each for each in archives.verify(world.archive)}
    assert {file: each.what for file, each in found.items()} == {
        f"pins/{cell}/PINS.md": "is not the file that was archived",
        f"pins/{cell}/constraints.txt": "is gone",
        "torch-0-py3-none-any.whl": "is not listed in wheelhouse.json",
    }
    assert found[f"pins/{cell}/PINS.md"].cells == (cell,)


@pytest.mark.parametrize("gone", ["keys", "wheels"])
def test_a_wheel_that_was_built_is_missed_with_the_record_of_its_build(
    world: World, tmp_path: Path, gone: str
) -> None:
    wheel = make_wheel(tmp_path / "made", "torch", "2.14.0+own")
    record = Record(
        key="1" * 64,
        wheel=wheel.name,
        sha256=sha256(wheel),
        size=wheel.stat().st_size,
        inputs={},
        tools={},
        without=(),
        libraries=(),
        log="",
        jobs=1,
        seconds=1.0,
        built="2026-11-24",
    )
    built = Cache(tmp_path / "builds")
    built.publish(record, wheel)
    cell = world.prove("2.14.0+cpu")
    (row,) = workflow.recall(replace(world.options, cells=(cell,))).rows
    work = workflow.recall(replace(world.options, cells=(cell,))).works[cell]
    proven = replace(takeaway._proven(row, work), builds=(record.key,))
    house = archives.add(world.archive, [proven], built=built, installer=installer())
    archives.seal(house, {})
    assert archives.verify(world.archive) == []
    shutil.rmtree(world.archive / "builds" / gone)
    (damage,) = archives.verify(world.archive)
    assert (damage.what, damage.cells) == ("is gone", (cell,))
    assert damage.file.startswith(f"builds/{gone}/")


def test_an_archive_that_was_not_finished_is_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = world.prove(f"{NIGHTLY}+cpu")

    def full(*words: object) -> None:
        raise InfrastructureError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(takeaway, "_pin", full)
        with pytest.raises(InfrastructureError, match="the disk is full"):
            put(world, cell)
    assert {each.what for each in archives.verify(world.archive)} == {
        "is not listed in wheelhouse.json"
    }
    put(world, cell)
    assert archives.verify(world.archive) == []


def test_a_directory_with_other_things_in_it_is_not_made_an_archive(world: World) -> None:
    cell = world.prove("2.14.0+cpu")
    world.archive.mkdir()
    (world.archive / "letter.txt").write_text("dear")
    with pytest.raises(ConfigurationError, match="holds other things"):
        put(world, cell)
    assert [path.name for path in world.archive.iterdir()] == ["letter.txt"]


def test_pinproof_archive_ends_with_1_where_a_file_is_damaged(world: World) -> None:
    put(world, world.prove(f"{NIGHTLY}+cpu"))
    words = [sys.executable, "-m", "pinproof", "archive", "--verify", "--out", str(world.archive)]
    good = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (good.returncode, "0 files are damaged" in good.stdout) == (0, True)
    next(world.archive.glob("lib-*.whl")).unlink()
    bad = subprocess.run(words, capture_output=True, text=True, check=False)
    assert bad.returncode == ExitCode.UNSAFE
    assert "lib-99.0-py3-none-any.whl is gone" in bad.stdout
