"""Tests of what the verb `cache` says of the wheels that were built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_cache import KEY, publish

from pinproof.builds import verbs
from pinproof.builds.cache import Cache
from pinproof.errors import ConfigurationError


def kept(store: Path) -> Cache:
    """Return a cache of one wheel below `store`."""
    cache = Cache(store / "builds")
    record = publish(cache)
    inputs = {"source": "flash-attn 2.8.3", "torch": "2.13.0", "archs": "120"}
    path = next((store / "builds").rglob("*.json"))
    path.write_text(json.dumps(replace(record, inputs=inputs).to_json()), encoding="utf-8")
    return cache


def test_the_cache_is_told_for_people_and_as_json(tmp_path: Path) -> None:
    kept(tmp_path)
    told = verbs.cache("list", tmp_path, 30.0)
    assert [wheel["key"] for wheel in told.document["wheels"]] == [KEY]
    (line,) = told.lines
    assert "flash-attn 2.8.3, torch 2.13.0, CUDA 13.0.88, for 120" in line
    assert told.well


def test_a_wheel_that_is_not_the_one_that_was_built_is_told(tmp_path: Path) -> None:
    cache = kept(tmp_path)
    whole = verbs.cache("verify", tmp_path, 30.0)
    assert (whole.well, whole.document["wheels"][0]["whole"]) == (True, True)
    (record,) = cache.records()
    cache.wheel_path(record).write_bytes(b"another")
    told = verbs.cache("verify", tmp_path, 30.0)
    assert (told.well, told.document["wheels"][0]["whole"]) == (False, False)
    assert told.lines[0].startswith("quarantined ")


def test_pruning_tells_what_it_removed_and_takes_no_time_before_now(tmp_path: Path) -> None:
    kept(tmp_path)
    with pytest.raises(ConfigurationError, match="--days -1 must be 0 or more"):
        verbs.cache("prune", tmp_path, -1.0)
    assert verbs.cache("prune", tmp_path, 0.0).document["wheels"] == 1
    assert verbs.cache("list", tmp_path, 0.0).lines == ("no wheel was built",)
