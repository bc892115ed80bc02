"""Tests of how steps are run and what is believed of them, with real environments."""

from __future__ import annotations

import hashlib
import io
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import empty_cells
import libraries
import pytest
from judged import cell, record

from pinproof import workflow
from pinproof.builds.cache import Cache, Record
from pinproof.errors import InfrastructureError
from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.evidence.store import Store, sha256
from pinproof.judge import audited
from pinproof.locks.installer import Installer
from pinproof.locks.lock import Lock
from pinproof.plan import recipe
from pinproof.plan.plan import Step
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage
from pinproof.run import runner
from pinproof.run.execute import Executor


def test_an_environment_names_the_install_that_filled_it(tmp_path: Path) -> None:
    empty_cells.write(tmp_path, count=1)
    proof = workflow.run(empty_cells.options(tmp_path), io.StringIO())
    (row,) = proof.rows
    home = tmp_path / ".nox" / row.cell.id
    assert runner.filled_by(home) == row.evidence[Stage.INSTALL].digest
    assert runner.filled_by(tmp_path / "nowhere") == ""


def built(store: Store) -> tuple[CellWork, Path]:
    """Return the work of a cell with one build, and the wheel that its build left."""
    matrix = empty_cells.shipped().named("blackwell-release")
    asked = cell(target="sm_120", flash_attn="2.8.3.post2", cuda="13.0")
    work = replace(recipe.of(asked, matrix, python="3.12"), lock=Lock(python="3.12"))
    (build,) = work.builds
    cache = Cache(store.builds)
    wheel = cache.work_dir(build.key) / "flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(b"wheel")
    record = Record(
        key=build.key,
        wheel=wheel.name,
        sha256=sha256(wheel),
        size=5,
        inputs=build.inputs(),
        tools={},
        without=(),
        libraries=(),
        log="",
        jobs=1,
        seconds=1.0,
        built="2026-11-23T18:00:00+00:00",
    )
    return work, cache.wheel_path(cache.publish(record, wheel))


def test_the_wheel_of_a_build_is_found_by_its_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    work, wheel = built(store)
    (found,) = runner.wheels_of(work, store)
    assert (found.path, found.name) == (str(wheel), "flash-attn")


def test_a_wheel_that_was_edited_since_its_build_is_never_installed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    work, wheel = built(store)
    wheel.write_bytes(b"other")
    with pytest.raises(InfrastructureError, match="there is no wheel of flash-attn"):
        runner.wheels_of(work, store)
    assert not wheel.exists()
    assert [path.read_bytes() for path in store.builds.glob("quarantine/*")] == [b"other"]


def test_without_a_finished_build_there_is_no_wheel(tmp_path: Path) -> None:
    work, _ = built(Store(tmp_path / "one"))
    with pytest.raises(InfrastructureError, match="there is no wheel of flash-attn"):
        runner.wheels_of(work, Store(tmp_path / "other"))


def test_a_wheel_that_an_archive_has_is_not_built_again(tmp_path: Path) -> None:
    archived, here = Store(tmp_path / "archive"), Store(tmp_path / "here")
    work, _ = built(archived)
    (build,) = work.builds
    house = SimpleNamespace(directory=archived.root)

    def no_backend(_: object) -> NoReturn:
        raise AssertionError("nothing is built")

    executor = Executor(
        store=here, envdir=tmp_path, machine=empty_cells.CPU, on_line=lambda step, line: None
    )
    run = runner.Runner(
        executor=executor,
        works={work.cell.id: work},
        backend=no_backend,
        installer=lambda: Installer(uv="", env={}, house=house),
    )
    step = Step(
        owner=build.owner,
        stage=Stage.BUILD,
        cells=(work.cell.id,),
        inputs=build.inputs(),
        digest=build.key,
        timeout=1.0,
    )
    found: list[Evidence] = []
    run([step], threading.Event(), lambda step: None, lambda step, known: found.append(known))
    assert [(known.outcome, known.data["sha256"]) for known in found] == [
        (Outcome.OK, hashlib.sha256(b"wheel").hexdigest())
    ]
    (wheel,) = runner.wheels_of(work, here)
    assert Path(wheel.path).read_bytes() == b"wheel"


def test_every_library_under_test_is_audited_for_the_target_of_its_cell(tmp_path: Path) -> None:
    ptx, sass = libraries.entry(libraries.PTX, 80), libraries.entry(libraries.SASS, 90)
    paths = [
        libraries.make_library(tmp_path / name, libraries.container(code))
        for name, code in (("_vllm_fa2_C.abi3.so", ptx), ("_vllm_fa3_C.abi3.so", sass))
    ]
    (tmp_path / "kernel.py").write_text("")
    listed = [{"path": str(path)} for path in (*paths, tmp_path / "kernel.py")]
    seen = record(Stage.INSPECT, {"schema": 1, "extensions": listed})
    audit = runner.with_audit(seen, "sm_120").data["audit"]
    assert [each["status"] for each in audit] == ["PTX-JIT", "NONE"]
    assert [each["sha256"] for each in audit] == [sha256(path) for path in paths]
    told = list(audited.limits(cell(target="sm_120", vllm="0.33.0"), {"audit": audit}))
    assert told[0].endswith("R580 or newer")
    assert runner.with_audit(seen, "cpu") is seen
