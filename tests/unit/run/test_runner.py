"""Tests of how steps are run and what is believed of them, with real environments."""

from __future__ import annotations

import hashlib
import io
import threading
import venv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import empty_cells
import libraries
import pytest
from judged import cell, record

from pinproof import workflow
from pinproof.builds import lookups
from pinproof.builds.cache import Cache, Record
from pinproof.errors import InfrastructureError
from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.evidence.store import Store, sha256
from pinproof.judge import audited
from pinproof.locks.installer import Installer, installer
from pinproof.locks.lock import Lock
from pinproof.plan import recipe
from pinproof.plan.plan import Step
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage
from pinproof.run import runner
from pinproof.run.environment import Uv
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
    found = recipe.of(asked, matrix, python="3.12", looked=lookups.look(asked, matrix))
    work = replace(found, lock=Lock(python="3.12"))
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


def building(work: CellWork) -> Step:
    """Return the step of the plan that makes the one build of `work`."""
    (build,) = work.builds
    return Step(
        owner=build.owner,
        stage=Stage.BUILD,
        cells=(work.cell.id,),
        inputs=build.inputs(),
        digest=build.key,
        timeout=1.0,
    )


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
    step = building(work)
    found: list[Evidence] = []
    run([step], threading.Event(), lambda step: None, lambda step, known: found.append(known))
    assert [(known.outcome, known.data["sha256"]) for known in found] == [
        (Outcome.OK, hashlib.sha256(b"wheel").hexdigest())
    ]
    (wheel,) = runner.wheels_of(work, here)
    assert Path(wheel.path).read_bytes() == b"wheel"


@pytest.mark.parametrize("offline", [True, False])
def test_a_build_looks_no_further_than_its_run_may(tmp_path: Path, offline: bool) -> None:
    store = Store(tmp_path)
    work, _ = built(store)
    run = runner.Runner(
        executor=Executor(
            store=store, envdir=tmp_path, machine=empty_cells.CPU, on_line=lambda step, line: None
        ),
        works={work.cell.id: work},
        backend=lambda settings: Uv(),
        installer=lambda: installer(offline=offline),
    )
    step = building(work)
    assert work.lock is not None
    *installs, own = run._build_spec(step, work, work.lock).commands
    assert all(("--offline" in command) is offline for command in (*installs, own))
    # What has the passwords of the indexes in its environment runs no setup.py.
    assert all("--only-binary" in command for command in installs)


FLASH = "vllm/vllm_flash_attn/"


def test_every_library_under_test_is_audited_for_the_target_of_its_cell(tmp_path: Path) -> None:
    site, empty = tmp_path / "site-packages", tmp_path / "dist-packages"
    ptx, sass = libraries.entry(libraries.PTX, 80), libraries.entry(libraries.SASS, 90)
    files = [f"{FLASH}_vllm_fa2_C.abi3.so", f"{FLASH}_vllm_fa3_C.abi3.so"]
    paths = libraries.install(site, "vllm", *files)
    for path, code in zip(paths, (ptx, sass), strict=True):
        libraries.make_library(path, libraries.container(code))
    document = {"schema": 1, "extensions": libraries.inspected(site)}
    seen = record(Stage.INSPECT, document)
    audit = runner.with_audit(seen, "sm_120", [empty, site]).data["audit"]
    assert [each["file"] for each in audit] == files
    assert [each["status"] for each in audit] == ["PTX-JIT", "NONE"]
    assert [each["sha256"] for each in audit] == [sha256(path) for path in paths]
    told = list(audited.limits(cell(target="sm_120", vllm="0.33.0"), {"audit": audit}))
    assert told[0].endswith("R580 or newer")
    assert runner.with_audit(seen, "cpu", [site]) is seen


def test_trouble_with_the_libraries_of_one_cell_ends_neither_the_run_nor_the_next_cell(
    tmp_path: Path,
) -> None:
    matrix = empty_cells.shipped().named("blackwell-release")
    executor = Executor(
        store=Store(tmp_path / "store"),
        envdir=tmp_path / "nox",
        machine=empty_cells.CPU,
        on_line=lambda step, line: None,
    )
    works, lane, sites = {}, [], []
    for number in (1, 2):
        asked = cell(number, target="sm_120", vllm="0.33.0")
        work = recipe.of(asked, matrix, python=empty_cells.PYTHON)
        works[asked.id] = replace(work, lock=Lock(python=empty_cells.PYTHON))
        home = executor.envdir / asked.id
        venv.create(home, symlinks=True)
        sites += home.glob("lib/python*/site-packages")
        lane.append(
            Step(
                owner=asked.id,
                stage=Stage.INSPECT,
                cells=(asked.id,),
                inputs={},
                digest=f"{number}" * 64,
                timeout=120.0,
            )
        )
    # Of the first the library is where no site directory of the cell is.
    libraries.install(tmp_path / "far", "vllm", f"{FLASH}_vllm_fa2_C.abi3.so")
    (sites[0] / "far.pth").write_text(f"{tmp_path / 'far'}\n")
    libraries.install(sites[1], "vllm", f"{FLASH}_vllm_fa2_C.abi3.so")
    run = runner.Runner(
        executor=executor,
        works=works,
        backend=lambda settings: Uv(),
        installer=lambda: Installer(uv="", env={}),
    )
    found: list[Evidence] = []
    run(lane, threading.Event(), lambda step: None, lambda step, known: found.append(known))
    first, second = found
    assert (first.outcome, second.outcome) == (Outcome.INFRA, Outcome.OK)
    assert first.reason.endswith("is in no site directory of the cell")
    assert [each["status"] for each in second.data["audit"]] == ["NO-GPU-CODE"]
