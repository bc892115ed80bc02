import os
from dataclasses import replace
from pathlib import Path

import pytest
from wheels import make_index, make_wheel, sha256

from pinproof.errors import ResolveError
from pinproof.locks.installer import Installer, find_uv, installer
from pinproof.locks.lock import Request, Wheel
from pinproof.locks.resolution import Resolution
from pinproof.locks.resolve import resolve

ANY = "py3-none-any"


class World:
    """A package index on disk, with a cache of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[Path] = []

    def add(self, name, version, *, requires=(), tag=ANY):
        self.files.append(
            make_wheel(self.root / "files", name, version, requires=requires, tag=tag)
        )
        return self.files[-1]

    def installer(self, **more):
        address = make_index(self.root / "simple", self.files)
        env = {"UV_DEFAULT_INDEX": address, "UV_CACHE_DIR": str(self.root / "cache")}
        return Installer(uv=find_uv(), env={**env, "PATH": os.environ["PATH"]}, **more)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def ask(*product, **more):
    return Request(**{"product": product, "harness": (), "python": "3.11", **more})


def names(pins):
    return [f"{pin.name} {pin.version}" for pin in pins]


def test_the_lock_holds_the_files_of_the_index_by_name_version_and_sha256(world):
    wheel = world.add("app", "1.0", requires=["lib>=1"])
    world.add("lib", "1.0")
    world.add("lib", "1.5")
    found = resolve(ask("app"), world.installer())
    assert names(found.lock.product) == ["app 1.0", "lib 1.5"]
    assert found.lock.product[0].sha256 == sha256(wheel)
    assert found.lock.product[0].file == wheel.name
    assert str(world.root) not in found.lock.text()


def test_a_resolution_is_read_back_as_it_was_written(world):
    world.add("app", "1.0")
    found = resolve(ask("app"), world.installer())
    assert Resolution.from_json(found.to_json()) == found


def test_of_several_wheels_the_one_of_the_asked_python_and_platform_is_locked(world):
    for tag in ("cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_28_x86_64", ANY):
        world.add("app", "1.0", tag=tag)
    request = ask("app", python="3.12", platform="x86_64-manylinux_2_35")
    found = resolve(request, world.installer())
    assert [pin.file for pin in found.lock.pins] == [
        "app-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    ]


def test_the_harness_bends_to_the_product_and_repeats_none_of_it(world):
    world.add("app", "1.0", requires=["lib<2"])
    world.add("lib", "1.0")
    world.add("lib", "2.0")
    world.add("check", "1.0", requires=["lib>=1"])
    found = resolve(ask("app", harness=("check",)), world.installer())
    assert names(found.lock.product) == ["app 1.0", "lib 1.0"]
    assert names(found.lock.harness) == ["check 1.0"]


def test_the_product_is_the_same_whatever_the_harness_wants(world):
    world.add("app", "1.0", requires=["lib"])
    world.add("lib", "1.0")
    world.add("lib", "2.0")
    world.add("check", "1.0", requires=["lib<2"])
    with pytest.raises(ResolveError, match="not the harness") as caught:
        resolve(ask("app", harness=("check",)), world.installer())
    assert not caught.value.conflict


def test_constraints_narrow_and_excludes_leave_out(world):
    world.add("app", "1.0", requires=["lib", "there"])
    world.add("lib", "1.0")
    world.add("lib", "2.0")
    request = ask("app", "there==7", constraints=("lib<2",), excludes=("there",))
    assert names(resolve(request, world.installer()).lock.pins) == ["app 1.0", "lib 1.0"]


def test_a_built_wheel_is_found_where_it_lies(world, tmp_path):
    world.add("lib", "1.0")
    path = make_wheel(tmp_path / "build", "app", "1.0+own", requires=["lib"])
    wheel = Wheel(path=str(path), sha256=sha256(path))
    found = resolve(ask("app==1.0+own", wheels=(wheel,)), world.installer())
    assert names(found.lock.product) == ["app 1.0+own", "lib 1.0"]


def test_versions_that_fit_nowhere_are_a_conflict_with_the_solver_s_reason(world):
    world.add("app", "1.0", requires=["lib>=2"])
    world.add("lib", "1.0")
    with pytest.raises(ResolveError, match="no versions fit app, lib<2") as caught:
        resolve(ask("app", "lib<2"), world.installer())
    assert caught.value.conflict
    assert "lib>=2" in caught.value.cause


def test_a_package_without_a_wheel_is_a_conflict(world, tmp_path):
    (tmp_path / "files").mkdir()
    source = tmp_path / "files" / "app-1.0.tar.gz"
    source.write_bytes(b"")
    world.files.append(source)
    with pytest.raises(ResolveError) as caught:
        resolve(ask("app"), world.installer())
    assert caught.value.conflict


def test_an_index_that_cannot_be_reached_says_nothing_of_the_combination_and_no_password(world):
    env = {"UV_DEFAULT_INDEX": "http://user:secret@127.0.0.1:9/wheels", "UV_HTTP_RETRIES": "0"}
    tool = Installer(uv=find_uv(), env={**env, "UV_CACHE_DIR": str(world.root)})
    with pytest.raises(ResolveError) as caught:
        resolve(ask("app"), tool)
    assert not caught.value.conflict
    assert "could not be resolved" in caught.value.what
    assert "secret" not in str(caught.value)


def test_a_missing_uv_is_no_conflict(world):
    with pytest.raises(ResolveError, match="could not be started") as caught:
        resolve(ask("app"), Installer(uv=str(world.root / "uv"), env={}))
    assert not caught.value.conflict


def test_a_resolution_that_takes_too_long_is_no_conflict(world):
    slow = world.root / "uv"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    tool = Installer(uv=str(slow), env={"PATH": os.environ["PATH"]})
    with pytest.raises(ResolveError, match="took too long") as caught:
        resolve(ask("app"), tool, timeout=0.1)
    assert not caught.value.conflict


def torches(world, *builds):
    world.add("nvidia-cuda-runtime", "13.0.96")
    for version in builds:
        cuda = () if version.endswith("+cpu") else ("nvidia-cuda-runtime",)
        world.add("torch", version, requires=cuda)


def test_a_cpu_cell_takes_the_cpu_build_that_the_sources_have(world):
    torches(world, "2.13.0", "2.13.0+cpu")
    found = resolve(ask("torch==2.13.0", torch="cpu"), world.installer())
    assert names(found.lock.pins) == ["torch 2.13.0+cpu"]
    assert found.notes == ()


def test_a_conflict_beside_the_right_build_of_torch_is_a_fact(world):
    torches(world, "2.13.0", "2.13.0+cpu")
    world.add("app", "1.0", requires=["torch<2.13"])
    with pytest.raises(ResolveError, match=r"no versions fit torch==2\.13\.0, app") as caught:
        resolve(ask("torch==2.13.0", "app", torch="cpu"), world.installer())
    assert caught.value.conflict


def test_a_gpu_cell_does_not_take_a_cpu_build_though_it_sorts_higher(world):
    torches(world, "2.13.0", "2.13.0+cpu")
    found = resolve(ask("torch==2.13.0", torch="cuda"), world.installer())
    assert names(found.lock.pins) == ["nvidia-cuda-runtime 13.0.96", "torch 2.13.0"]


def test_a_named_cuda_is_recognised_by_its_runtime(world):
    torches(world, "2.13.0")
    found = resolve(ask("torch==2.13.0", torch="cu130"), world.installer())
    assert names(found.lock.pins)[-1] == "torch 2.13.0"
    assert found.lock.torch_backend == ""


def test_a_cpu_cell_that_only_finds_the_cuda_build_says_so(world):
    torches(world, "2.13.0")
    found = resolve(ask("torch==2.13.0", torch="cpu"), world.installer(offline=True))
    assert names(found.lock.pins)[-1] == "torch 2.13.0"
    assert len(found.notes) == 1
    assert "no CPU build of torch was found" in found.notes[0]
    assert "GB" in found.notes[0]


def test_another_cuda_than_the_named_one_is_never_taken(world):
    torches(world, "2.13.0")
    with pytest.raises(ResolveError, match="no cu128 build") as caught:
        resolve(ask("torch==2.13.0", torch="cu128"), world.installer(offline=True))
    assert not caught.value.conflict


@pytest.mark.parametrize("asked", ["torch>=0.dev0", "torch==2.15.0.dev20261101"])
def test_a_nightly_is_taken_though_it_is_a_pre_release(world, asked):
    torches(world, "2.14.0+cpu", "2.15.0.dev20261101+cpu")
    found = resolve(ask(asked, torch="cpu"), world.installer())
    assert names(found.lock.pins) == ["torch 2.15.0.dev20261101+cpu"]


def test_a_release_is_no_nightly(world):
    torches(world, "2.14.0+cpu")
    with pytest.raises(ResolveError, match="no nightly of torch") as caught:
        resolve(ask("torch>=0.dev0", torch="cpu"), world.installer())
    assert not caught.value.conflict


class Recalling:
    """A wheelhouse that knows nothing."""

    def __init__(self, directory):
        self.directory = directory

    def recall(self, request):
        return None


def test_what_a_wheelhouse_lacks_is_no_conflict_of_the_combination(world):
    world.add("app", "1.0", requires=["lib"])
    tool = world.installer(house=Recalling(world.root / "files"))
    with pytest.raises(ResolveError) as caught:
        resolve(ask("app"), tool)
    assert not caught.value.conflict
    assert "make the wheelhouse again" in caught.value.remedy


def test_a_wheelhouse_is_all_that_is_looked_at(world):
    world.add("app", "1.0")
    house = world.root / "house"
    make_wheel(house, "app", "0.9")
    found = resolve(ask("app"), world.installer(house=Recalling(house)))
    assert names(found.lock.pins) == ["app 0.9"]


def test_of_the_caller_uv_sees_where_to_fetch_and_nothing_that_changes_the_answer(monkeypatch):
    for name in ("UV_CONSTRAINT", "UV_TORCH_BACKEND", "PIP_CONSTRAINT", "PYTHONPATH", "HF_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("UV_CACHE_DIR", "/cache")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/wheels")
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:hidden@mirror.example/wheels")
    tool = installer()
    assert "secret" not in tool.env.values()
    assert tool.env["UV_CACHE_DIR"] == "/cache"
    assert tool.env["UV_DEFAULT_INDEX"] == "https://own.example/wheels"
    assert "hidden" not in repr(tool)


def test_a_cpu_build_in_a_directory_hides_no_cuda_build_nor_a_conflict(world):
    torches(world, "2.13.0", "2.13.0+cpu")
    world.add("app", "1.0", requires=["torch==2.14.0"])
    tool = world.installer()
    found = resolve(ask("torch==2.13.0", torch="cu130"), tool)
    assert found.lock.version("torch") == "2.13.0"
    with pytest.raises(ResolveError, match="no versions fit") as caught:
        resolve(ask("torch==2.13.0", "app", torch="cu130"), tool)
    assert caught.value.conflict


def test_the_files_of_a_lock_are_taken_though_newer_ones_are_there(world):
    world.add("app", "1.0", requires=["lib"])
    world.add("lib", "1.0")
    held = resolve(ask("app"), world.installer()).lock
    world.root = world.root / "later"
    world.add("lib", "2.0")
    found = resolve(ask("app"), world.installer(), held=held)
    assert found.lock == held
    assert found.notes == ()


def test_a_lock_whose_files_are_gone_is_resolved_anew_and_a_note_says_so(world):
    world.add("app", "1.0", requires=["lib"])
    world.add("lib", "1.0")
    held = resolve(ask("app"), world.installer()).lock
    world.root = world.root / "later"
    world.files.pop()
    world.add("lib", "2.0")
    found = resolve(ask("app"), world.installer(), held=held)
    assert names(found.lock.pins) == ["app 1.0", "lib 2.0"]
    assert "not the committed lock" in found.notes[0]
    assert "lib==1.0" in found.notes[0]


def test_a_build_with_a_local_version_may_have_other_bytes_elsewhere(world):
    world.add("app", "1.0+cpu")
    held = resolve(ask("app"), world.installer()).lock
    world.root = world.root / "later"
    world.files = [make_wheel(world.root / "files", "app", "1.0+cpu", files={"app.py": "other"})]
    found = resolve(ask("app"), world.installer(), held=held)
    assert "app 1.0+cpu has other bytes here" in found.notes[0]
    assert found.lock.pins[0].sha256 == sha256(world.files[0])


def test_a_release_with_other_bytes_than_the_lock_says_is_never_installed(world):
    world.add("app", "1.0")
    held = resolve(ask("app"), world.installer()).lock
    world.root = world.root / "later"
    world.files = [make_wheel(world.root / "files", "app", "1.0", files={"app.py": "other"})]
    with pytest.raises(ResolveError, match="is not the file of the lock") as caught:
        resolve(ask("app"), world.installer(), held=held)
    assert not caught.value.conflict


@pytest.mark.parametrize("version", ["1.0.dev1+cu130", "1.0+g0123abc"])
def test_a_build_of_an_index_that_the_lock_names_never_has_other_bytes(world, version):
    world.add("app", version)
    held = replace(resolve(ask(f"app=={version}"), world.installer()).lock, indexes=("nightly/cu",))
    world.root = world.root / "later"
    world.files = [make_wheel(world.root / "files", "app", version, files={"app.py": "other"})]
    with pytest.raises(ResolveError, match="is not the file of the lock") as caught:
        resolve(ask(f"app=={version}"), world.installer(), held=held)
    assert not caught.value.conflict
    assert held.pins[0].sha256[:12] in caught.value.what
    assert sha256(world.files[0])[:12] in caught.value.what


def test_other_bytes_are_refused_where_other_files_of_the_lock_are_gone_too(world):
    world.add("app", "1.0", requires=["lib"])
    world.add("lib", "1.0")
    held = resolve(ask("app"), world.installer()).lock
    world.root = world.root / "later"
    other = make_wheel(
        world.root / "files", "app", "1.0", requires=["lib"], files={"app.py": "other"}
    )
    world.files = [other]
    world.add("lib", "2.0")
    with pytest.raises(ResolveError, match="is not the file of the lock"):
        resolve(ask("app"), world.installer(), held=held)


def test_of_two_wheels_of_a_release_the_locked_one_is_taken(world):
    world.add("app", "1.0", tag=ANY)
    held = resolve(ask("app"), world.installer()).lock
    world.root = world.root / "later"
    world.add("app", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    found = resolve(ask("app"), world.installer(), held=held)
    assert found.lock == held
