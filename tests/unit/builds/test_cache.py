"""Tests of the wheels that were built: found by key, verified, put aside, removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pinproof.builds.cache import Cache, Record
from pinproof.errors import InfrastructureError
from pinproof.evidence.store import sha256

KEY = "0" * 63 + "1"


def publish(cache: Cache, key: str = KEY, data: bytes = b"wheel") -> Record:
    wheel = cache.work_dir(key) / "out" / "flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    wheel.write_bytes(data)
    record = Record(
        key=key,
        wheel=wheel.name,
        sha256=sha256(wheel),
        size=len(data),
        inputs={"project": "flash-attn"},
        tools={"nvcc": "13.0.88"},
        without=("backward",),
        libraries=({"file": "x.so", "status": "NATIVE"},),
        log="",
        jobs=2,
        seconds=1.5,
        built="2026-11-24T07:00:00+00:00",
    )
    return cache.publish(record, wheel)


def test_a_wheel_is_found_by_its_key_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    record = publish(cache)
    assert cache.find(KEY) == record
    assert cache.wheel_path(record).read_bytes() == b"wheel"
    assert cache.find("f" * 64) is None


@pytest.mark.parametrize("damage", ["edit", "remove", "record"])
def test_what_is_damaged_is_no_wheel(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    path = cache.wheel_path(publish(cache))
    if damage == "edit":
        path.write_bytes(b"WHEEL")
    elif damage == "remove":
        path.unlink()
    else:
        cache.record_path(KEY).write_text("{")
    assert cache.find(KEY) is None
    aside = list((tmp_path / "quarantine").glob("*"))
    assert [each.read_bytes() for each in aside] == ([b"WHEEL"] if damage == "edit" else [])
    assert cache.find(publish(cache).key) is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wheel", "../../../evil.json"),
        ("wheel", "../../../evil.whl"),
        ("sha256", "../.."),
        ("key", "../../evil"),
    ],
)
def test_a_record_of_an_archive_that_leads_elsewhere_is_none(
    tmp_path: Path, name: str, text: Any
) -> None:
    archived, here = Cache(tmp_path / "archive" / "builds"), Cache(tmp_path / "store" / "builds")
    record = publish(archived)
    raw = record.to_json() | {name: text}
    if name == "wheel":
        outside = archived.wheel_path(record).parent / str(text)
        outside.resolve().write_bytes(b"wheel")
    archived.record_path(KEY).write_text(json.dumps(raw))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert here.adopt(KEY, archived) is None
    assert archived.records() == []
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_builds_with_the_same_bytes_share_a_file(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    one, other = publish(cache), publish(cache, "2" * 64)
    assert cache.wheel_path(one) == cache.wheel_path(other)
    assert {each.key for each in cache.records()} == {one.key, other.key}


def test_a_build_is_held_by_one_process_and_by_what_it_started(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.exclusive(KEY) as lock:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
        with (
            pytest.raises(InfrastructureError, match="another process"),
            cache.exclusive(KEY, wait=False),
        ):
            pass
    with pytest.raises(InfrastructureError), cache.exclusive(KEY, wait=False):
        pass
    child.communicate(b"\n")
    with cache.exclusive(KEY, wait=False):
        pass


def test_prune_keeps_what_is_used_and_what_is_being_built(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    fresh, stale = publish(cache), publish(cache, "2" * 64, b"old")
    long_ago = time.time() - 40 * 86400
    os.utime(cache.record_path(stale.key), (long_ago, long_ago))
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "x.whl").write_bytes(b"123")
    for key in ("3" * 64, "4" * 64):
        cache.work_dir(key).mkdir(parents=True)
    with cache.exclusive("4" * 64):
        pruned = cache.prune(days=30)
    assert (pruned.wheels, pruned.quarantined) == (1, 1)
    assert cache.find(fresh.key) is not None
    assert not cache.wheel_path(stale).exists()
    assert cache.work_dir("4" * 64).exists()
    assert not cache.work_dir("3" * 64).exists()


def test_a_wheel_is_taken_over_from_another_cache_once_and_leaves_that_as_it_is(
    tmp_path: Path,
) -> None:
    archive, cache = Cache(tmp_path / "archive"), Cache(tmp_path / "here")
    record = publish(archive)
    assert cache.adopt(KEY, archive) == record
    assert cache.find(KEY) == record
    assert archive.find(KEY) == record
    archive.wheel_path(record).unlink()
    assert cache.adopt(KEY, archive) == record
    assert {path.name for path in cache.root.iterdir()} == {"keys", "wheels"}


def test_a_damaged_wheel_is_not_taken_over_and_stays_where_it_is(tmp_path: Path) -> None:
    archive, cache = Cache(tmp_path / "archive"), Cache(tmp_path / "here")
    path = archive.wheel_path(publish(archive))
    path.write_bytes(b"WHEEL")
    assert cache.adopt(KEY, archive) is None
    assert path.read_bytes() == b"WHEEL"
    assert cache.find(KEY) is None


def test_who_waits_for_a_build_is_told_so_and_goes_on_after_it(tmp_path: Path) -> None:
    cache, told, done = Cache(tmp_path), threading.Event(), threading.Event()

    def second() -> None:
        with cache.exclusive("k" * 64, waiting=told.set):
            done.set()

    with cache.exclusive("k" * 64, waiting=lambda: pytest.fail("nobody holds it")):
        other = threading.Thread(target=second)
        other.start()
        assert told.wait(10)
        assert not done.is_set()
    other.join(10)
    assert done.is_set()
