"""Which toolkit a build takes; the real one from wheels is an integration test."""

from pathlib import Path

import pytest

from pinproof.builds import toolkit
from pinproof.errors import ConfigurationError


def made(home: Path, version: str) -> Path:
    """Make a toolkit whose nvcc tells that version."""
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    release = ".".join(version.split(".")[:2])
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{version}'\n")
    nvcc.chmod(0o755)
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").touch()
    return home


def test_the_wheels_of_one_release_are_asked_for_as_one_package() -> None:
    assert toolkit.requirement("13.0").startswith("cuda-toolkit[nvcc,crt,")
    assert toolkit.requirement("13.2.1").endswith("==13.2.*")


def test_a_release_without_a_compiler_on_the_index_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigurationError, match=r"wheels of CUDA 12.8 hold no nvcc") as error:
        toolkit.requirement("12.8")
    assert "CUDA_HOME" in error.value.remedy


def test_the_system_toolkit_is_the_one_of_the_release(tmp_path: Path) -> None:
    home = made(tmp_path, "12.8.93")
    found = toolkit.of_system("12.8", {"CUDA_HOME": str(home)})
    assert (found.home, found.nvcc, found.cuda) == (home, "12.8.93", "12.8")
    assert found.variables()["CUDA_HOME"] == str(home)


def test_a_machine_with_another_release_is_told_which_it_has(tmp_path: Path) -> None:
    home = made(tmp_path, "11.1.105")
    with pytest.raises(ConfigurationError, match=r"no toolkit of CUDA 10\.9") as error:
        toolkit.of_system("10.9", {"CUDA_HOME": str(home)})
    assert f"11.1 in {home}" in error.value.cause


def test_a_directory_without_a_compiler_is_no_toolkit(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be started"):
        toolkit.at(tmp_path)
    with pytest.raises(ConfigurationError, match="holds no nvcc"):
        toolkit.lay_out(tmp_path, tmp_path / "cuda")


@pytest.mark.parametrize(
    ("packages", "major"),
    [
        ({"torch": "2.11.0+cu130"}, "13"),
        ({"torch": "2.10.0", "nvidia-cuda-runtime-cu12": "12.8.90"}, "12"),
        ({"torch": "2.11.0", "nvidia-cuda-runtime": "13.0.96"}, "13"),
        (
            {"torch": "2", "nvidia-cuda-runtime": "13.0", "nvidia-cuda-runtime-cu12": "12.8"},
            "",
        ),
        ({"torch": "2.13.0+cpu"}, ""),
        ({}, ""),
    ],
)
def test_torch_tells_its_cuda_by_its_version_or_by_the_runtime_that_it_brought(
    packages: dict[str, str], major: str
) -> None:
    assert toolkit.of_torch(packages) == major


def test_a_toolkit_of_another_major_release_than_torchs_is_refused(tmp_path: Path) -> None:
    home = toolkit.at(made(tmp_path / "cuda", "12.8.93"))
    toolkit.check(home, {"torch": "2.10.0+cu128"})
    toolkit.check(home, {"torch": "2.10.0"})
    with pytest.raises(ConfigurationError, match=r"torch 2.11.0\+cu130 is of CUDA 13") as error:
        toolkit.check(home, {"torch": "2.11.0+cu130"})
    assert "toolkit of CUDA 13" in error.value.remedy


def test_a_toolkit_that_is_laid_out_again_is_whole_at_every_moment(tmp_path: Path) -> None:
    made(tmp_path / "site" / "nvidia" / "cu13", "13.0.88")
    home = toolkit.lay_out(tmp_path / "site", tmp_path / "cuda").home
    before = {path.name: path.lstat().st_ino for path in home.iterdir()}
    # What points to the right place already stays as it is.
    assert toolkit.lay_out(tmp_path / "site", tmp_path / "cuda").nvcc == "13.0.88"
    assert {path.name: path.lstat().st_ino for path in home.iterdir()} == before
    (home / "bin").unlink()
    (home / "bin").symlink_to(tmp_path)
    assert toolkit.lay_out(tmp_path / "site", tmp_path / "cuda").nvcc == "13.0.88"
    assert not list(home.rglob(".*"))
