"""Tests of what names a source build, and of each project's knobs."""

from dataclasses import replace

import pytest
from judged import cell

from pinproof.builds import build
from pinproof.builds.build import Build
from pinproof.locks.lock import Lock

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def flash(torch: str = "2.13.0", arch: str = "sm_120", **axes: str) -> Build:
    values = {"flash_attn": "2.8.3.post2", "cuda": "13.0", **axes}
    return build.of(cell(target=arch, **values), "flash-attn", Lock(python="3.12"), torch=torch)


@pytest.mark.parametrize(
    ("axes", "built"),
    [
        ({}, ()),
        ({"flash_attn": "none", "vllm": "0.24.0"}, ()),
        ({"flash_attn": "2.8.3"}, ("flash-attn",)),
        ({"flash_attn": "git:main", "vllm": "git:main"}, ("flash-attn", "vllm")),
    ],
)
def test_what_has_no_wheel_is_built(axes: dict[str, str], built: tuple[str, ...]) -> None:
    assert build.needed(cell(target="sm_120", **axes)) == built


def test_equal_inputs_are_one_build_and_another_torch_or_gpu_is_another() -> None:
    keys = {flash().key, flash(torch="2.14.0").key, flash(arch="sm_90").key, flash(cuda="12.8").key}
    assert len(keys) == 4
    assert flash().key == flash().key
    assert flash().owner == f"build-{flash().key[:8]}"


def test_a_moving_reference_is_built_as_the_commit_that_it_names() -> None:
    made = build.of(
        cell(target="sm_120", flash_attn="git:main"),
        "flash-attn",
        Lock(python="3.12"),
        torch="2.13.0",
        commit=COMMIT,
    )
    assert made.source.endswith(f"@{COMMIT}")
    assert "main" not in made.source


def test_flash_attn_is_forced_to_build_and_told_bare_numbers() -> None:
    variables = flash().variables(cores=8, memory_gib=64)
    assert variables["FLASH_ATTENTION_FORCE_BUILD"] == "TRUE"
    assert variables["FLASH_ATTN_CUDA_ARCHS"] == "120"


def test_vllm_is_told_the_architecture_with_a_point() -> None:
    made = build.of(cell(target="sm_120", vllm="git:main"), "vllm", Lock(python="3.12"), torch="2")
    assert dict(made.env) == {"TORCH_CUDA_ARCH_LIST": "12.0"}


@pytest.mark.parametrize(("cores", "memory", "jobs"), [(64, 16, "2"), (2, 512, "2"), (8, 2, "1")])
def test_as_many_compilers_run_as_cores_and_memory_allow(
    cores: int, memory: float, jobs: str
) -> None:
    assert flash().variables(cores=cores, memory_gib=memory)["MAX_JOBS"] == jobs


def test_a_build_never_takes_a_wheel_from_anywhere() -> None:
    ((*words,),) = flash().commands("python", "out")
    assert "--no-build-isolation" in words
    assert words[words.index("--no-binary") + 1] == "flash-attn"
    assert "--no-cache-dir" in words


def test_another_knob_is_another_key() -> None:
    assert replace(flash(), env=()).key != flash().key
