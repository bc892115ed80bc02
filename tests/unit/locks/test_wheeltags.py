import pytest

from pinproof.errors import ConfigurationError, ResolveError
from pinproof.locks.wheeltags import best_wheel, platform_tags

NUMPY = [
    "numpy-2.3.5-cp311-cp311-manylinux_2_28_x86_64.whl",
    "numpy-2.3.5-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "numpy-2.3.5-cp312-cp312-manylinux_2_28_x86_64.whl",
    "numpy-2.3.5-cp312-cp312-win_amd64.whl",
    "numpy-2.3.5-py3-none-any.whl",
]


@pytest.mark.parametrize(
    ("python", "platform", "place"),
    [
        ("3.12", "x86_64-manylinux_2_28", 2),
        ("3.12", "x86_64-manylinux_2_17", 1),
        ("3.11", "x86_64-manylinux_2_40", 0),
        ("3.12", "aarch64-manylinux_2_28", 4),
        ("3.13", None, 4),
    ],
)
def test_the_wheel_is_the_one_that_pip_would_take_there(python, platform, place):
    assert best_wheel(NUMPY, python, platform) == NUMPY[place]


def test_an_abi3_wheel_of_an_older_python_fits_a_newer_one():
    file = "vllm-0.24.0-cp38-abi3-manylinux_2_28_x86_64.whl"
    assert best_wheel([file], "3.12", "x86_64-manylinux_2_35") == file


def test_no_fitting_wheel_is_a_conflict():
    with pytest.raises(ResolveError, match="aarch64") as caught:
        best_wheel(NUMPY[:4], "3.12", "aarch64-manylinux_2_28")
    assert caught.value.conflict


def test_platforms_are_listed_from_the_newest_glibc_to_the_oldest():
    found = platform_tags("x86_64-manylinux_2_28")
    assert found[0] == "manylinux_2_28_x86_64"
    assert found.index("manylinux2014_x86_64") == found.index("manylinux_2_17_x86_64") + 1
    assert found[-3:] == ["manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64"]


@pytest.mark.parametrize("name", ["", "linux", "x86_64-manylinux_2_", "x86_64-manylinux_2_28; rm"])
def test_a_platform_that_is_none_says_how_to_write_one(name):
    with pytest.raises(ConfigurationError) as caught:
        platform_tags(name)
    assert "x86_64-manylinux_2_28" in caught.value.remedy
