"""Tests of what names a source build."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from judged import cell

from pinproof.builds import build
from pinproof.builds.build import Build, Patch
from pinproof.builds.source import Kind, Source
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


def test_everything_that_the_wheel_depends_on_is_in_the_key() -> None:
    plain = flash()
    others = [
        flash(torch="2.14.0"),
        flash(arch="sm_90"),
        flash(cuda="12.8"),
        flash(flash_attn="2.8.3"),
        replace(plain, profile="serving"),
        replace(plain, env=(("CXXFLAGS", "-g"),)),
        replace(plain, patches=(Patch(path="p", sha256="1" * 64),)),
        replace(plain, python="3.13"),
        replace(plain, compiler="13.2.0"),
        replace(plain, platform="Linux aarch64 glibc 2.36"),
    ]
    assert len({plain.key, *(each.key for each in others)}) == 1 + len(others)
    assert flash().key == plain.key
    assert plain.owner == f"build-{plain.key[:8]}"


def test_where_a_patch_or_a_tree_lies_is_in_no_key() -> None:
    one = Source(project="flash-attn", kind=Kind.TREE, place="/here", identity="1" * 64)
    plain = replace(flash(), source=one, patches=(Patch(path="/a/p", sha256="2" * 64),))
    moved = replace(
        plain,
        source=replace(one, place="/there"),
        patches=(Patch(path="/b/q", sha256="2" * 64),),
    )
    assert moved.key == plain.key


def test_a_vllm_of_the_stable_abi_is_one_wheel_for_every_torch() -> None:
    def vllm(version: str, torch: str) -> Build:
        asked = cell(target="sm_120", vllm=version, cuda="13.0")
        return build.of(asked, "vllm", Lock(python="3.12"), torch=torch)

    assert vllm("0.28.0", "2.13.0").key == vllm("0.28.0", "2.14.0").key
    assert vllm("0.26.0", "2.13.0").key != vllm("0.26.0", "2.14.0").key
    assert vllm("git:main", "2.13.0").key != vllm("git:main", "2.14.0").key


def test_a_moving_reference_is_built_as_the_commit_that_it_names() -> None:
    made = build.of(
        cell(target="sm_120", flash_attn="git:main"),
        "flash-attn",
        Lock(python="3.12"),
        torch="2.13.0",
        commit=COMMIT,
    )
    assert made.source.identity == COMMIT
    assert "main" not in json.dumps(made.inputs())


def test_what_the_matrix_sets_wins_over_the_profile() -> None:
    made = replace(flash(), profile="serving", env=(("NVCC_APPEND_FLAGS", "-lineinfo"),))
    assert made.variables["NVCC_APPEND_FLAGS"] == "-lineinfo"
    assert made.variables["FLASH_ATTENTION_FORCE_BUILD"] == "TRUE"


def test_a_build_is_read_back_as_it_was_written() -> None:
    attention = Source(project="vllm-flash-attn", kind=Kind.GIT, place="u", identity=COMMIT)
    made = replace(
        flash(), env=(("A", "b"),), patches=(Patch(path="p", sha256="1"),), attention=attention
    )
    again = Build.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert again.key == made.key
