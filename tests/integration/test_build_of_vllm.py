"""A project laid out as vLLM is: from a commit with submodules, told in vLLM's own words.

What it is told it writes into its wheel. The real one takes hours.
"""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
import small_project
from small_project import Project

from pinproof import workflow
from pinproof.builds import source
from pinproof.builds.build import Build
from pinproof.builds.cache import Cache
from pinproof.evidence.evidence import Outcome
from pinproof.options import Options
from pinproof.plan.stage import Stage

SETUP = """
import json, os, pathlib
from setuptools import setup
attention = pathlib.Path(os.environ["VLLM_FLASH_ATTN_SRC_DIR"])
told = {
    "archs": os.environ["TORCH_CUDA_ARCH_LIST"],
    "device": os.environ["VLLM_TARGET_DEVICE"],
    "attention": (attention / "CMakeLists.txt").read_text(),
    "cutlass of attention": (attention / "csrc" / "cutlass" / "cutlass.h").read_text(),
    "third party": pathlib.Path("third_party/cutlass/cutlass.h").read_text(),
    "requirements": pathlib.Path("requirements/cuda.txt").read_text(),
}
pathlib.Path("told.py").write_text("TOLD = " + json.dumps(told))
setup(name="vllm", version="0.33.1.dev1", py_modules=["told"])
"""

#: As vLLM's own: takes every line about torch out of the requirements.
USE_EXISTING = """
import pathlib, sys
assert sys.argv[1:] == ["--prefix"]
for path in pathlib.Path("requirements").glob("*.txt"):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "torch" not in line))
"""

PYPROJECT = """
[build-system]
requires = ["setuptools<81", "wheel", "torch == 2.14.0"]
build-backend = "setuptools.build_meta"
"""

VLLM = {
    "setup.py": SETUP,
    "pyproject.toml": PYPROJECT,
    "tools/use_existing_torch.py": USE_EXISTING,
    "requirements/cuda.txt": "torch==2.14.0\nsix\n",
}
ATTENTION = {"CMakeLists.txt": 'archs(FA2_ARCHS "8.0+PTX" "${CUDA_ARCHS}")\n'}


def git(tree: Path, *words: str) -> str:
    local = ("-c", "user.name=n", "-c", "user.email=n@n", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", "-C", tree, *local, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(path: Path, files: dict[str, str], submodule: str = "") -> str:
    """Make a repository with one commit, and a submodule of `cutlass` at that path."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    git(path, "init", "--quiet", "--initial-branch=main")
    if submodule:
        place = f"file://{path.with_name('cutlass')}"
        git(path, "submodule", "--quiet", "add", place, submodule)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=one")
    return git(path, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_project.environment(tmp_path_factory.mktemp("env") / "venv")


def test_vllm_from_a_commit_is_told_its_gpu_its_torch_and_a_native_flash_attention(
    tmp_path: Path, python: Path
) -> None:
    repository(tmp_path / "cutlass", {"cutlass.h": "of a submodule"})
    commit = repository(tmp_path / "vllm", VLLM, "third_party/cutlass")
    repository(tmp_path / "attention", ATTENTION, "csrc/cutlass")
    build = Build(
        source=source.describe("vllm", f"git+file://{tmp_path}/vllm@main"),
        attention=source.describe(source.ATTENTION, f"git+file://{tmp_path}/attention@main"),
        torch="2.14.1",
        cuda="13.0",
        archs="120",
        python="3.11",
    )
    assert build.source.identity == commit
    project = Project(tree=tmp_path / "vllm", python=python, store=tmp_path / "store")
    project.store.mkdir()
    code, said = project.run(build)
    assert code == 0, said
    assert "run tools/use_existing_torch.py --prefix" in said
    assert "edited: native FlashAttention 2" in said
    cache = Cache(project.store / "builds")
    record = cache.find(build.key)
    assert record is not None
    with zipfile.ZipFile(cache.wheel_path(record)) as wheel:
        told = json.loads(wheel.read("told.py").decode().removeprefix("TOLD = "))
    assert told == {
        "archs": "12.0",
        "device": "cuda",
        "attention": 'archs(FA2_ARCHS "8.0;12.0" "${CUDA_ARCHS}")\n',
        "cutlass of attention": "of a submodule",
        "third party": "of a submodule",
        "requirements": "six\n",
    }


MATRIX = """
format = 1
[targets.sm_120]
[[matrix]]
name = "vllm"
target = "sm_120"
axes = {{ torch = ["2.14.1"], cuda = ["13.0"], vllm = ["git+file://{place}/vllm@main"] }}
[[matrix.overrides]]
select = 'vllm.kind == "git"'
attention = "git+file://{place}/attention@main"
without = ["torch", "triton", "numpy", "pytest"]
"""


def test_a_matrix_locks_builds_and_installs_a_vllm_from_git(
    tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "cutlass", {"cutlass.h": "of a submodule"})
    repository(tmp_path / "vllm", VLLM, "third_party/cutlass")
    repository(tmp_path / "attention", ATTENTION, "csrc/cutlass")
    (tmp_path / "matrix.toml").write_text(MATRIX.format(place=tmp_path))
    # Its nvcc is asked for its version alone.
    (cuda,) = python.parents[1].glob("lib/python*/site-packages/nvidia/cu13")
    (cuda / "include" / "cuda_runtime.h").touch()
    monkeypatch.setenv("CUDA_HOME", str(cuda))
    options = Options(
        matrix_file=tmp_path / "matrix.toml",
        matrix="vllm",
        store=tmp_path / ".pinproof",
        until=Stage.INSTALL,
    )
    (row,) = workflow.run(options, io.StringIO()).rows
    ended = {stage: evidence.outcome for stage, evidence in row.evidence.items()}
    reasons = [evidence.reason for evidence in row.evidence.values()]
    assert ended[Stage.RESOLVE] is ended[Stage.BUILD] is ended[Stage.INSTALL] is Outcome.OK, reasons
    home = options.envdir / row.cell.id
    (site,) = home.glob("lib/python*/site-packages")
    assert "8.0;12.0" in (site / "told.py").read_text()
    assert (site / "six.py").is_file()
