import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheels import make_wheel, sha256

from pinproof.errors import ConfigurationError, ResolveError
from pinproof.locks import wheelhouse
from pinproof.locks.lock import Lock, Pin, Request
from pinproof.locks.resolution import Resolution
from pinproof.locks.wheelhouse import Entry, House, Wheel

REQUEST = Request(
    product=("app",), python="3.12", platform="x86_64-manylinux_2_35", excludes=("torch",)
)


@pytest.fixture
def house(tmp_path):
    """A wheelhouse with one wheel and one lock, on disk."""
    file = make_wheel(tmp_path, "app", "1.0")
    pin = Pin(name="app", version="1.0", sha256=sha256(file), file=file.name)
    other = Pin(name="numpy", version="2.3.5", sha256="0" * 64, file="numpy-2.3.5-x.whl")
    lock = Lock(python="3.12", platform=REQUEST.platform, product=(pin,), harness=(other,))
    key = wheelhouse.key_without_machine(REQUEST)
    made = House(
        directory=tmp_path,
        matrix="m",
        python="3.12",
        platform=REQUEST.platform,
        wheels=(
            Wheel(file=file.name, sha256=pin.sha256, size=file.stat().st_size, cells=("cpu-1",)),
        ),
        entries={
            key: Entry(key=key, excludes=("torch",), resolution=Resolution(lock=lock)),
            "k": Entry(key="k", excludes=(), conflict="no versions fit"),
        },
        cells={"cpu-1": key, "cpu-2": "k"},
        notes=("a note",),
    )
    wheelhouse.save(made)
    return made


def test_a_wheelhouse_is_read_back_as_it_was_written(house):
    assert wheelhouse.load(house.directory) == house
    assert house.size == house.wheels[0].size


def test_the_target_machine_gets_the_lock_that_was_made_for_it(house):
    found = house.recall(replace(REQUEST, platform=None))
    assert [pin.name for pin in found.lock.pins] == ["app", "numpy"]
    assert found.lock.platform == ""


def test_what_the_target_has_beyond_the_list_is_left_out_of_the_lock(house):
    found = house.recall(replace(REQUEST, excludes=("numpy", "torch")))
    assert [pin.name for pin in found.lock.pins] == ["app"]


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, excludes=()),
        replace(REQUEST, product=("app>1",)),
        replace(REQUEST, constraints=("numpy<2.4",)),
        replace(REQUEST, python="3.11"),
    ],
)
def test_another_request_is_not_answered_from_memory(house, other):
    assert house.recall(other) is None


def test_a_conflict_that_the_indexes_found_stays_one(house):
    key = wheelhouse.key_without_machine(REQUEST)
    broken = replace(house, entries={key: Entry(key=key, excludes=(), conflict="torch is too old")})
    with pytest.raises(ResolveError, match="torch is too old") as caught:
        broken.recall(REQUEST)
    assert caught.value.conflict


def test_a_wheelhouse_that_lost_a_wheel_names_it(house):
    (house.directory / house.wheels[0].file).unlink()
    with pytest.raises(ConfigurationError, match=house.wheels[0].file):
        wheelhouse.load(house.directory)


def test_a_wheel_that_was_copied_in_part_is_noticed(house):
    path = house.directory / house.wheels[0].file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match="lacks"):
        wheelhouse.load(house.directory)


def test_a_later_format_is_refused_as_that(house):
    path = house.directory / wheelhouse.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    with pytest.raises(ConfigurationError, match="schema 2"):
        wheelhouse.load(house.directory)


def test_a_directory_without_a_manifest_is_no_wheelhouse(tmp_path):
    with pytest.raises(ConfigurationError, match="no wheelhouse") as caught:
        wheelhouse.load(tmp_path)
    assert "make_wheelhouse.py" in caught.value.remedy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = ("schema", "matrix", "python", "platform", "files", "cells", "locks", "notes")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, JSON)), st.booleans())
def test_any_other_manifest_is_refused_or_holds_no_wheel(tmp_path_factory, raw, current):
    directory = tmp_path_factory.mktemp("house")
    if current:
        raw = {**raw, "schema": 1}
    (directory / wheelhouse.MANIFEST).write_text(json.dumps(raw))
    with contextlib.suppress(ConfigurationError):
        assert wheelhouse.load(directory).wheels == ()
