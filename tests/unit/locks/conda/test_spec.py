from pathlib import Path

import pytest

from pinproof.errors import ConfigurationError
from pinproof.locks.conda import spec

TEXT = """
name: cuda-13.0
channels: [conda-forge]
platforms: [linux-64]
dependencies: [python 3.12.*, cuda-nvcc]
virtual-packages: {__cuda: "13.0", __cuda_arch: "12.0"}
"""


def write(root: Path, text: str, name: str = "cuda-13.0") -> Path:
    path = root / "envs" / f"{name}.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_the_machine_that_a_lock_is_for_is_the_declared_one_and_what_goes_without_saying(tmp_path):
    found = spec.read(write(tmp_path, TEXT)).virtual_packages("linux-64")
    assert found["__cuda_arch"] == "12.0"
    assert found["__glibc"] == "2.28"
    assert "x86_64" in found["__archspec"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("conda-forge", "other"),
        ("cuda-nvcc", "cuda-nvcc 13.0.*"),
        ('"12.0"', '"9.0"'),
        ("linux-64", "linux-aarch64"),
    ],
)
def test_whatever_decides_the_solution_changes_the_hash_of_the_specification(tmp_path, old, new):
    before = spec.read(write(tmp_path, TEXT))
    after = spec.read(write(tmp_path, TEXT.replace(old, new)))
    hashes = [each.content_hash(each.platforms[0]) for each in (before, after)]
    assert hashes[0] != hashes[1]


def test_the_order_of_dependencies_and_a_comment_do_not(tmp_path):
    before = spec.read(write(tmp_path, TEXT))
    other = TEXT.replace("[python 3.12.*, cuda-nvcc]", "[cuda-nvcc, python  3.12.*] # b")
    assert spec.read(write(tmp_path, other)).content_hash("linux-64") == before.content_hash(
        "linux-64"
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"13.0"', "13.0", 'is the number 13.0: put it in quotes, "13.0"'),
        ("virtual-packages", "virtual_packages", "Did you mean 'virtual-packages'?"),
        ("linux-64", "linux64", "Did you mean 'linux-64'?"),
        ("linux-64", "win-64", "There is: linux-64, linux-aarch64"),
        ("python 3.12.*, ", "", "must name a python"),
        ("python 3.12.*, ", "python-dateutil, ", "must name a python"),
        ("cuda-nvcc]", "{pip: [torch]}]", "wheels of a cell come from matrix.toml"),
        ("[conda-forge]", "conda-forge", "channels must be a list of texts"),
        ("[conda-forge]", "[]", "channels must be a list of texts"),
        ("[conda-forge]", "['https://u:p@host/c']", "password or token"),
        ("[conda-forge]", "['https://host/t/secret/c']", "password or token"),
        ("__cuda_arch", "cuda_arch", "is no virtual package"),
        ('"12.0"', '">=12"', "must be a version"),
        ("name: cuda-13.0", "name: cuda-12.8", "must be that of its file, 'cuda-13.0'"),
        ("name: cuda-13.0", "name: [", "is no YAML"),
        (TEXT, "- a", "must be a mapping"),
        (TEXT, "", "must be a mapping"),
    ],
)
def test_what_is_wrong_in_a_specification_is_said_with_its_place(tmp_path, old, new, told):
    assert old in TEXT
    with pytest.raises(ConfigurationError) as caught:
        spec.read(write(tmp_path, TEXT.replace(old, new)))
    assert told in str(caught.value)
    assert "cuda-13.0.yml" in caught.value.what


def test_a_password_in_a_channel_is_not_repeated_in_the_complaint(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        spec.read(write(tmp_path, TEXT.replace("conda-forge", "https://u:hunter2@host/c")))
    assert "hunter2" not in str(caught.value)


def test_an_unknown_environment_is_answered_with_the_nearest(tmp_path):
    write(tmp_path, TEXT)
    with pytest.raises(ConfigurationError, match=r"Did you mean 'cuda-13.0'"):
        spec.named("cuda-13", tmp_path)


def test_every_shipped_specification_is_sound_and_bounds_its_compiler_by_its_cuda():
    root = Path(__file__).parents[4]
    limits = {"cuda-12.8": 15, "cuda-12.9": 15, "cuda-13.0": 16}
    assert spec.names(root) == ["cuda-12.8", "cuda-12.9", "cuda-13.0", "cuda-13.x"]
    for name in spec.names(root):
        found = spec.named(name, root)
        assert dict(found.declared)["__cuda_arch"] == "12.0"
        assert not any("://" in channel for channel in found.channels)
        asked = dict(each.split(" ", 1) for each in found.dependencies if " " in each)
        if name in limits:
            assert asked["cuda-version"] == f"{name[5:]}.*"
            assert asked["gxx_linux-64"] == f">=13,<{limits[name]}"
