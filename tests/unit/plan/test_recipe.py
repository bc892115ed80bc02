"""Tests of what names a stage's evidence."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import empty_cells
import pytest
from judged import cell

from pinproof.builds import build as builds
from pinproof.builds import declared, lookups
from pinproof.builds.build import Patch
from pinproof.builds.declared import Declared
from pinproof.builds.lookups import Looked
from pinproof.errors import ConfigurationError, ResolveError
from pinproof.evidence.evidence import Evidence, Outcome, digest_of
from pinproof.evidence.store import Store
from pinproof.locks.lock import Lock, Pin, Wheel
from pinproof.matrix import matrixfile
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Matrix
from pinproof.plan import plan, recipe
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage

CHECKS = ("correctness", "throughput")


def works(directory: Path, **more: object) -> list[CellWork]:
    empty_cells.write(directory, checks=CHECKS)
    chosen = empty_cells.chosen(directory, **more)
    made = [recipe.of(each, chosen.matrix, python=empty_cells.PYTHON) for each in chosen.tried]
    return [replace(work, lock=Lock(python=empty_cells.PYTHON)) for work in made]


def inputs(work: CellWork, machine: object = empty_cells.CPU) -> dict[Stage, str]:
    staged = recipe.everything(work, machine)  # type: ignore[arg-type]
    return {stage: digest_of(read) for stage, _, read, _ in staged.stages}


def test_cells_that_ask_for_the_same_share_a_lock_and_nothing_else(tmp_path: Path) -> None:
    one, other = works(tmp_path)
    assert recipe.lock_owner(one.request) == recipe.lock_owner(other.request)
    owners = [owner for _, owner, _, _ in recipe.everything(one, empty_cells.CPU).stages]
    assert owners[1:] == [one.cell.id] * 4


def test_another_package_is_another_install_and_another_measurement(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    pin = Pin(name="numpy", version="2.3.0", sha256="a" * 64, file="numpy-2.3.0-py3-none-any.whl")
    moved = replace(work, lock=Lock(python=empty_cells.PYTHON, harness=(pin,)))
    before, after = inputs(work), inputs(moved)
    assert before[Stage.RESOLVE] == after[Stage.RESOLVE]
    assert all(before[stage] != after[stage] for stage in before if stage is not Stage.RESOLVE)


def test_a_system_package_that_was_built_anew_under_its_version_is_measured_again(
    tmp_path: Path,
) -> None:
    work = replace(works(tmp_path)[0], system={"torch": "2.11.0"}, records={"torch": "a" * 64})
    assert inputs(work) == inputs(replace(work))
    before, after = inputs(work), inputs(replace(work, records={"torch": "b" * 64}))
    assert before[Stage.CORRECTNESS] != after[Stage.CORRECTNESS]


def test_another_machine_measures_again_and_does_not_install_again(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    before = inputs(work)
    after = inputs(work, replace(empty_cells.CPU, cpu="Another Processor"))
    assert before[Stage.INSTALL] == after[Stage.INSTALL]
    assert before[Stage.CORRECTNESS] != after[Stage.CORRECTNESS]


def test_a_variable_of_the_cell_is_part_of_what_it_measures(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    other = replace(work, settings=replace(work.settings, env=(("OMP_NUM_THREADS", "1"),)))
    assert inputs(work)[Stage.INSPECT] != inputs(other)[Stage.INSPECT]


def test_the_stages_end_where_the_user_says(tmp_path: Path) -> None:
    work = works(tmp_path)[0]
    staged = recipe.everything(work, empty_cells.CPU, until=Stage.INSPECT)
    assert [stage for stage, *_ in staged.stages] == [Stage.RESOLVE, Stage.INSTALL, Stage.INSPECT]


def test_before_the_lock_is_known_the_digests_are_not_either(tmp_path: Path) -> None:
    work = replace(works(tmp_path)[0], lock=None)
    staged = recipe.everything(work, empty_cells.CPU)
    assert [read for _, _, read, _ in staged.stages[1:]] == [None] * 4


def test_code_that_runs_in_cells_is_named_whole_and_bytecode_is_not(tmp_path: Path) -> None:
    digest = recipe.code_digest()
    assert len(digest) == 64
    assert recipe.suite().joinpath("test_attention.py").is_file()


def git(tree: Path, *words: str) -> str:
    local = ("-c", "user.name=n", "-c", "user.email=n@n", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", tree, *local, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


VLLM = {
    "requirements/common.txt": "# for all\nnumpy\ntransformers >= 5.5.3, < 6  # as of 0.33\n",
    "requirements/cuda.txt": "-r common.txt\n\n--extra-index-url x\nflashinfer-cubin==1\n"
    "torch==2.14.0\ntorchaudio\nray; os_name > ''\n",
    "pyproject.toml": '[build-system]\nrequires = ["cmake>=3.26.1", "torch == 2.14.0", "jinja2"]\n',
}


def repository(path: Path, files: dict[str, str]) -> str:
    """Make a repository with one commit and a submodule, and return the commit."""
    for where, listed in ((path.with_name("cutlass"), {"cutlass.h": "1"}), (path, files)):
        where.mkdir()
        git(where, "init", "--quiet", "--initial-branch=main")
        for name, text in listed.items():
            (where / name).parent.mkdir(exist_ok=True)
            (where / name).write_text(text)
        git(where, "add", "--all")
        git(where, "commit", "--quiet", "--message=one")
    git(path, "submodule", "--quiet", "add", f"file://{path.with_name('cutlass')}", "csrc/cutlass")
    git(path, "commit", "--quiet", "--message=two")
    return git(path, "rev-parse", "HEAD")


def from_git(directory: Path, ref: str = "main", memory: Path | None = None) -> CellWork:
    """Return the work of a cell that builds vLLM from the repository in `directory`."""
    matrix = empty_cells.shipped().named("blackwell-nightly")
    text = f"git+file://{directory}/vllm@{ref}"
    asked = cell(target="sm_120", vllm=text, flash_attn="none", cuda="13.0", torch="2.14.1")
    looked = lookups.look(asked, matrix, memory=memory)
    return recipe.of(asked, matrix, python="3.12", machine=empty_cells.CPU, looked=looked)


def test_what_a_commit_declares_is_known_without_a_network_once_it_was_read(
    tmp_path: Path,
) -> None:
    commit = repository(tmp_path / "vllm", VLLM)
    first = from_git(tmp_path, ref=commit, memory=tmp_path / "memory")
    (tmp_path / "vllm").rename(tmp_path / "away")
    declared._of.cache_clear()
    again = from_git(tmp_path, ref=commit, memory=tmp_path / "memory")
    assert again.request.digest == first.request.digest
    assert (again.tools, again.commits) == (first.tools, first.commits)
    declared._of.cache_clear()
    with pytest.raises(ResolveError):
        from_git(tmp_path, ref=commit, memory=tmp_path / "other")


def test_a_vllm_from_git_is_resolved_by_what_its_commit_declares(tmp_path: Path) -> None:
    commit = repository(tmp_path / "vllm", VLLM)
    work = from_git(tmp_path)
    assert work.commits == {"vllm": commit}
    assert work.tools == {"vllm": ("cmake>=3.26.1", "jinja2")}
    wanted = ("numpy", "transformers >= 5.5.3, < 6", "ray; os_name > ''")
    assert work.request.product[:1] == ("torch==2.14.1",)
    assert work.request.product[-3:] == wanted
    torch = Pin(name="torch", version="2.14.1", sha256="", file="")
    (build,) = replace(work, lock=Lock(python="3.12", product=(torch,))).builds
    assert (build.source.identity, build.torch) == (commit, "2.14.1")
    assert build.variables["TORCH_CUDA_ARCH_LIST"] == "12.0"


def test_a_reference_that_moved_is_another_build_and_another_lock(tmp_path: Path) -> None:
    first = from_git(tmp_path, ref=repository(tmp_path / "vllm", VLLM))
    more = VLLM["requirements/cuda.txt"] + "flashinfer-python==0.7.2\n"
    (tmp_path / "vllm" / "requirements" / "cuda.txt").write_text(more)
    git(tmp_path / "vllm", "commit", "--quiet", "--all", "--message=three")
    later = from_git(tmp_path)
    assert first.request.digest != later.request.digest
    torch = Lock(python="3.12")
    builds_of = [replace(work, lock=torch).builds[0].key for work in (first, later)]
    assert len(set(builds_of)) == 2


def test_a_matrix_can_build_vllms_flash_attention_for_the_gpu(tmp_path: Path) -> None:
    repository(tmp_path / "vllm", VLLM)
    (tmp_path / "x").mkdir()
    commit = repository(tmp_path / "x" / "flash", {"CMakeLists.txt": ""})
    url = f"git+file://{tmp_path}"
    (tmp_path / "matrix.toml").write_text(
        f"""
        format = 1
        [targets.sm_120]
        [[matrix]]
        name = "v"
        target = "sm_120"
        axes = {{ torch = ["2.14.1"], cuda = ["13.0"], vllm = ["{url}/vllm@main"] }}
        [[matrix.overrides]]
        select = 'vllm.kind == "git"'
        attention = "{url}/x/flash@main"
        """
    )
    matrix = matrixfile.load(tmp_path / "matrix.toml").named("v")
    asked = cell(target="sm_120", vllm=f"{url}/vllm@main", cuda="13.0", torch="2.14.1")
    looked = lookups.look(asked, matrix)
    work = recipe.of(asked, matrix, python="3.12", machine=empty_cells.CPU, looked=looked)
    (build,) = replace(work, lock=Lock(python="3.12")).builds
    assert build.attention is not None
    assert build.inputs()["attention"] == f"git {commit}"
    assert build.inputs()["edits"] == ["native FlashAttention 2"]
    (own,) = replace(work, lock=Lock(python="3.12"), attention=None).builds
    assert own.key != build.key


@pytest.mark.parametrize(
    ("ref", "files", "said", "conflict"),
    [
        ("nothing", VLLM, "has no reference nothing", True),
        ("1" * 40, VLLM, "has no commit 1111", True),
        ("main", {"setup.py": ""}, "lists no requirements of a CUDA build", True),
    ],
)
def test_a_git_value_that_is_no_vllm_speaks_against_the_cell(
    tmp_path: Path, ref: str, files: dict[str, str], said: str, conflict: bool
) -> None:
    repository(tmp_path / "vllm", files)
    with pytest.raises(ResolveError, match=said) as caught:
        from_git(tmp_path, ref=ref)
    assert caught.value.conflict is conflict


def test_a_repository_that_cannot_be_reached_says_nothing_of_the_cell(tmp_path: Path) -> None:
    for ref in ("main", "2" * 40):
        with pytest.raises(ResolveError) as caught:
            from_git(tmp_path, ref=ref)
        assert not caught.value.conflict
        assert "check the network" in caught.value.remedy


def test_a_plan_is_made_of_what_was_looked_up_and_looks_at_nothing_itself(tmp_path: Path) -> None:
    matrix = empty_cells.shipped().named("blackwell-nightly")
    text = f"git+file://{tmp_path}/nowhere@main"
    asked = cell(target="sm_120", vllm=text, flash_attn="none", cuda="installed", torch="2.14.1")
    seen = Declared(commit="3" * 40, runtime=("ray",), build=("jinja2",))
    patch = Patch(path=str(tmp_path / "nothing.patch"), sha256="4" * 64)
    looked = Looked(vllm=seen, cuda="13.0", patches={"vllm": (patch,)})
    work = recipe.of(asked, matrix, python="3.12", machine=empty_cells.CPU, looked=looked)
    (build,) = replace(work, lock=Lock(python="3.12")).builds
    assert (build.source.identity, build.cuda, build.patches) == ("3" * 40, "13.0", (patch,))
    with pytest.raises(ValueError, match="was not looked up"):
        recipe.of(asked, matrix, python="3.12")


def test_the_source_archive_of_a_release_is_part_of_the_key(tmp_path: Path) -> None:
    matrix = empty_cells.shipped().named("blackwell-release")
    asked = cell(target="sm_120", flash_attn="2.8.3.post2", cuda="13.0")
    found = recipe.of(asked, matrix, python="3.12", looked=Looked())
    work = replace(found, lock=Lock(python="3.12"))
    assert work.request.sources == ("flash-attn==2.8.3.post2",)
    keys = set()
    for digest in ("a" * 64, "b" * 64):
        file = "flash_attn-2.8.3.post2.tar.gz"
        pin = Pin(name="flash-attn", version="2.8.3.post2", sha256=digest, file=file)
        (build,) = replace(work, archives={"flash-attn": pin}).builds
        assert build.inputs()["archive"] == digest
        keys.add(build.key)
    assert len(keys) == 2


def test_what_is_built_is_not_resolved_but_what_it_imports_is() -> None:
    matrix = empty_cells.shipped().named("blackwell-release")
    asked = cell(target="sm_120", flash_attn="2.8.3.post2", cuda="13.0")
    request = recipe.of(asked, matrix, python="3.12", looked=Looked()).request
    assert "einops" in request.product
    assert not [text for text in request.product if text.startswith("flash-attn")]


@pytest.mark.parametrize("release", ["13.0", "13.2"])
def test_the_toolkit_that_is_installed_is_part_of_a_key_by_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    for path in (nvcc, tmp_path / "include" / "cuda_runtime.h"):
        path.parent.mkdir()
        path.write_text(
            f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.8'\n"
        )
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    matrix = empty_cells.shipped().named("blackwell-release")
    asked = cell(target="sm_120", flash_attn="2.8.3.post2", cuda="installed")
    looked = lookups.look(asked, matrix)
    work = recipe.of(asked, matrix, python="3.12", looked=looked)
    (build,) = replace(work, lock=Lock(python="3.12")).builds
    assert build.inputs()["cuda"] == release


def test_pins_hold_the_wheels_that_were_built(tmp_path: Path) -> None:
    wheel = Wheel(path="/x/flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl", sha256="b" * 64)
    pinned = works(tmp_path)[0].pinned([wheel])
    assert pinned is not None
    assert [(pin.name, pin.version) for pin in pinned.product] == [("flash-attn", "2.8.3")]


BUILDS = """
format = 1
[targets.sm_120]
[[matrix]]
name = "b"
target = "sm_120"
profile = "serving"
[matrix.axes]
torch = ["2.13.0", "2.14.0", "2.15.0"]
cuda = ["13.0"]
flash-attn = ["2.8.3", "2.8.3.post2"]
vllm = ["none", "0.24.0", "0.28.0", "0.33.0"]
[[matrix.overrides]]
select = 'flash_attn == "2.8.3"'
profile = "custom"
build-env = { NVCC_APPEND_FLAGS = "-lineinfo" }
patches = { flash-attn = ["fix.patch"] }
"""


def building(directory: Path) -> list[CellWork]:
    """Return the works of a matrix of 24 cells that build flash-attn, each with its torch."""
    (directory / "matrix.toml").write_text(BUILDS)
    matrix = matrixfile.load(directory / "matrix.toml").named("b")
    locks = {
        torch: Lock(python="3.12", product=(Pin(name="torch", version=torch, sha256="", file=""),))
        for torch in matrix.axes["torch"]
    }
    # Not expand: its rules know that these releases do not fit each other, which is not the point.
    every = cells_of(matrix)
    works = [
        recipe.of(
            each,
            matrix,
            python="3.12",
            machine=empty_cells.CPU,
            looked=lookups.look(each, matrix),
        )
        for each in every
    ]
    return [replace(work, lock=locks[work.cell.axis("torch")]) for work in works]


def cells_of(matrix: Matrix) -> list[Cell]:
    names = list(matrix.axes)
    return [
        cell(target="sm_120", **{k.replace("-", "_"): v for k, v in zip(names, each, strict=True)})
        for each in itertools.product(*matrix.axes.values())
    ]


def test_a_matrix_plans_as_many_builds_as_it_has_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINPROOF_ROOT", str(tmp_path))
    (tmp_path / "fix.patch").write_text("a patch")
    works = building(tmp_path)
    assert len(works) == 24
    keys = {build.key for work in works for build in work.builds}
    asked = [recipe.everything(work, empty_cells.CPU) for work in works]
    made = plan.make(asked, Store(tmp_path / "store"), machine="cpu")
    builds = [step for step in made.steps if step.stage is Stage.BUILD]
    assert len(builds) == len(keys) == 6
    assert {step.digest for step in builds} == keys
    assert {len(step.cells) for step in builds} == {4}


def test_what_an_override_sets_for_a_build_is_part_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINPROOF_ROOT", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"there is no patch .*fix\.patch"):
        building(tmp_path)
    (tmp_path / "fix.patch").write_text("a patch")
    keys = []
    for text in ("a patch", "a patch", "another"):
        (tmp_path / "fix.patch").write_text(text)
        (build,) = building(tmp_path)[0].builds
        assert dict(build.env) == {"NVCC_APPEND_FLAGS": "-lineinfo"}
        keys.append(build.key)
    assert keys[0] == keys[1] != keys[2]


def test_another_commit_of_vllm_builds_no_flash_attn_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commits = ("1" * 40, "2" * 40)
    asked = cell(target="sm_120", flash_attn="2.8.3.post2", vllm="git:main", cuda="13.0")

    def planned(commit: str) -> list[plan.Step]:
        lock = Lock(python="3.12")
        flash = builds.of(asked, "flash-attn", lock, torch="2.14.0")
        vllm = builds.of(asked, "vllm", lock, torch="2.14.0", commit=commit)
        stages = tuple((Stage.BUILD, each.owner, each.inputs(), 1.0) for each in (flash, vllm))
        work = plan.Work(cell="sm120-a", target="sm_120", stages=stages)
        return list(plan.make([work], store, machine="cpu").steps)

    for step in planned(commits[0]):
        store.save(
            Evidence(
                cell=step.owner,
                stage=step.stage,
                digest=step.digest,
                outcome=Outcome.OK,
                data={},
                inputs=step.inputs,
                machine={},
                started="2026-11-24T07:00:00+00:00",
                seconds=1.0,
            )
        )
    flash, vllm = planned(commits[1])
    assert flash.state is plan.State.CACHED
    assert vllm.state is plan.State.CHANGED
    assert vllm.reason == f"source git {commits[0]} -> git {commits[1]}"
