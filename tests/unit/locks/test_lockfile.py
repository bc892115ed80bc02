"""Tests of the committed lock: what is written is read back, and nothing else is read."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.locks import lockfile
from pinproof.locks.fixed import Fixed
from pinproof.locks.lock import Lock, Pin, Request
from pinproof.locks.lockfile import Entry, Lockfile
from pinproof.matrix.cell import Cell

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
DIGEST = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
PLATFORM = "x86_64-manylinux_2_28"

VALUES = st.builds(
    Fixed,
    axis=st.sampled_from(["torch", "vllm"]),
    asked=TEXT.filter(bool),
    build=TEXT,
    version=TEXT,
    commit=TEXT,
    url=TEXT,
    sha256=TEXT,
    when=TEXT.filter(bool),
    notes=st.lists(TEXT, max_size=2).map(tuple),
)
PINS = st.builds(
    Pin,
    name=st.just("torch"),
    version=st.sampled_from(["2.13.0", "2.13.0+cpu"]),
    sha256=DIGEST,
    file=st.just("torch-2.13.0-py3-none-any.whl"),
)
LOCKS = st.builds(Lock, python=st.just("3.11"), product=PINS.map(lambda pin: (pin,)))
FOUND = st.builds(
    lambda number, digest, lock, conflict: (
        Entry(
            cell=f"cpu-{number:06x}",
            python="3.11",
            platform=PLATFORM,
            request=digest,
            conflict="" if lock else conflict,
        ),
        lock,
    ),
    st.integers(0, 2**24 - 1),
    DIGEST,
    st.none() | LOCKS,
    TEXT,
)


def made(values=(), found=(), matrix="m"):
    empty = Lockfile(matrix=matrix, made="2026-11-24", targets=(("3.11", PLATFORM),))
    return lockfile.put_together(empty, values, found)


def one(version="2.13.0"):
    pin = Pin(name="torch", version=version, sha256="0" * 64, file=f"torch-{version}-x.whl")
    entry = Entry(cell="cpu-000001", python="3.11", platform=PLATFORM, request="1" * 64)
    return made(found=[(entry, Lock(python="3.11", product=(pin,)))])


@given(st.lists(VALUES, max_size=3), st.lists(FOUND, max_size=3))
def test_a_lock_is_read_back_as_it_was_written(tmp_path_factory, values, found):
    path = tmp_path_factory.mktemp("locks") / "m.lock.toml"
    written = made(values, found)
    lockfile.save(written, path)
    assert lockfile.load(path) == written


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_lock(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("locks") / "m.lock.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        lockfile.load(path)


@given(st.data())
def test_an_edit_of_any_character_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("locks") / "m.lock.toml"
    lockfile.save(one(), path)
    text = path.read_text().partition("\n\n")[2]  # the heading is for people
    place = data.draw(st.integers(0, len(text) - 1))
    edited = text[:place] + data.draw(st.sampled_from("7f z\"'")) + text[place + 1 :]
    path.write_text(edited)
    with contextlib.suppress(ConfigurationError):
        assert lockfile.load(path) == one()  # an edit that says the same, such as a blank


def test_no_lock_is_none(tmp_path):
    assert lockfile.load(tmp_path / "m.lock.toml") is None


def test_a_lock_of_a_newer_schema_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)
    path.write_text(path.read_text().replace("schema = 1", "schema = 2\nnew = true"))
    with pytest.raises(ConfigurationError, match="is of schema 2; this version reads 1") as caught:
        lockfile.load(path)
    assert "update Pinproof" in caught.value.remedy


def test_a_lock_that_was_edited_by_hand_is_refused(tmp_path):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)
    path.write_text(path.read_text().replace("3.11", "3.12"))
    with pytest.raises(ConfigurationError, match="edited by hand") as caught:
        lockfile.load(path)
    assert "nox -s lock -- --matrix m" in caught.value.remedy


def pins_of(path):
    (file,) = path.parent.glob("m/*.txt")
    return file


def test_pins_that_were_edited_by_hand_are_refused(tmp_path):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)
    file = pins_of(path)
    file.write_text(file.read_text().replace("2.13.0", "2.13.1"))
    with pytest.raises(ConfigurationError, match=r"m/cpu-000001\.\w+\.txt was edited by hand"):
        lockfile.load(path)


def test_pins_that_are_gone_are_named(tmp_path):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)
    pins_of(path).unlink()
    with pytest.raises(ConfigurationError, match="is missing or unreadable"):
        lockfile.load(path)


def test_the_pins_are_in_the_form_that_pip_reads_and_hold_no_address(tmp_path):
    lockfile.save(one(), tmp_path / "m.lock.toml")
    text = pins_of(tmp_path / "m.lock.toml").read_text()
    assert f"torch==2.13.0 --hash=sha256:{'0' * 64}" in text
    assert "://" not in text


def test_cells_with_the_same_pins_share_a_file(tmp_path):
    lock = Lock(python="3.11")
    entries = [
        Entry(cell=f"cpu-00000{n}", python="3.11", platform=PLATFORM, request=f"{n}" * 64)
        for n in range(3)
    ]
    both = made(found=[(entry, lock) for entry in entries])
    assert len({entry.file for entry in both.entries}) == len(both.locks) == 1


def test_a_new_lock_takes_the_place_of_the_old_one_and_of_its_pins(tmp_path):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)
    old = pins_of(path)
    lockfile.save(one("2.14.0"), path)
    assert lockfile.load(path) == one("2.14.0")
    assert pins_of(path) != old


@pytest.mark.parametrize("harm", ["edited", "gone"])
def test_the_remedy_for_damaged_pins_works(tmp_path, harm):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)
    pins_of(path).write_text("x") if harm == "edited" else pins_of(path).unlink()
    with pytest.raises(ConfigurationError) as caught:
        lockfile.load(path)
    assert "delete lockfiles/m.lock.toml and run: nox -s lock -- --matrix m" in caught.value.remedy
    path.unlink()
    lockfile.save(one(), path)
    assert lockfile.load(path) == one()


def test_what_others_put_beside_the_pins_is_left_alone(tmp_path):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)
    old = pins_of(path)
    note = path.parent / "m" / "notes.txt"
    note.write_text("mine")
    lockfile.save(one("2.14.0"), path)
    assert note.read_text() == "mine"
    assert not old.exists()


def test_a_lock_of_thousands_of_cells_is_read_back(tmp_path):
    path = tmp_path / "m.lock.toml"
    entries = [
        Entry(cell=f"cpu-{n:06x}", python="3.11", platform=PLATFORM, request="1" * 64)
        for n in range(8000)
    ]
    written = made(found=[(entry, Lock(python="3.11")) for entry in entries])
    lockfile.save(written, path)
    assert path.stat().st_size > 1_000_000
    assert lockfile.load(path) == written


def test_a_disk_that_refuses_leaves_the_old_lock(tmp_path, monkeypatch):
    path = tmp_path / "m.lock.toml"
    lockfile.save(one(), path)

    def full(self, target):
        if Path(target).name == path.name:
            raise OSError(28, "No space left on device")
        return real(self, target)

    real = Path.replace
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InfrastructureError):
        lockfile.save(one("2.14.0"), path)
    assert lockfile.load(path) == one()


def test_a_lock_is_recalled_for_its_very_request_and_machine_alone():
    request = Request(product=("torch==2.13.0",), python="3.11", platform=PLATFORM)
    entry = Entry(
        cell="cpu-000001",
        python="3.11",
        platform=PLATFORM,
        request=lockfile.key_without_platform(request),
    )
    lock = Lock(python="3.11")
    found = made(found=[(entry, lock)])
    assert found.recall("cpu-000001", replace(request, platform=None), "x86_64") == lock
    assert found.recall("cpu-000002", request, "x86_64") is None
    assert found.recall("cpu-000001", request, "aarch64") is None
    assert found.recall("cpu-000001", replace(request, python="3.12"), "x86_64") is None
    assert found.recall("cpu-000001", replace(request, excludes=("a",)), "x86_64") is None


def test_of_two_platforms_of_a_machine_values_and_pins_are_of_the_same_one():
    near, far = "x86_64-manylinux_2_28", "x86_64-manylinux_2_35"
    values = [
        Fixed(axis="torch", asked="nightly", build="cpu", python="3.11", platform=of, when="x")
        for of in (near, far)
    ]
    found = [
        (Entry(cell="cpu-000001", python="3.11", platform=of, request="1" * 64), None)
        for of in (near, far)
    ]
    lock = made(values=values, found=found)
    cell = Cell(id="cpu-000001", matrix="m", target="cpu", axes=(("torch", "nightly"),))
    for asked, of in ((near, near), (far, far), ("x86_64", near), ("x86_64-manylinux_2_39", near)):
        assert [each.platform for each in lock.fixed(cell, "3.11", asked)] == [of]
        assert lock.entry("cpu-000001", "3.11", asked).platform == of
    assert lock.entry("cpu-000001", "3.11", "aarch64") is None
    assert lock.fixed(cell, "3.11", "aarch64") == ()
