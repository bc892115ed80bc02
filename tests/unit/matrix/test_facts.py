"""The release tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinproof.errors import ConfigurationError
from pinproof.matrix import axis, facts

SHIPPED = facts.shipped()


@pytest.mark.parametrize(
    ("name", "release", "field", "fact"),
    [
        ("torch", "2.11.0", "cuda", "13.0"),
        ("torch", "2.13.0", "triton", "3.7.1"),
        ("torch", "2.8.0", "nccl", "2.27.3"),
        ("cuda", "12.8", "driver", "570"),
        ("cuda", "13.0", "gcc_below", "16"),
        ("triton", "3.7.1", "ptxas_blackwell", "13.1.80"),
        ("flash-attn", "2.8.3", "wheel_torch_below", "2.11"),
        ("vllm", "0.24.0", "torch", "2.11.0"),
        ("vllm", "0.33.0", "python_min", "3.11"),
        ("vllm", "0.20.2", "glibc", "2.35"),
        ("vllm", "0.19.1", "cuda_major", 12),
    ],
)
def test_the_shipped_tables_know_a_release(
    name: str, release: str, field: str, fact: object
) -> None:
    assert SHIPPED.of(name, release)[field] == fact


def test_a_release_overrides_its_series_field_by_field() -> None:
    assert SHIPPED.of("torch", "2.9.1")["triton"] == "3.5.1"
    assert "triton" not in SHIPPED.of("torch", "2.9.0")
    assert SHIPPED.of("torch", "2.9.0")["cuda"] == SHIPPED.of("torch", "2.9.1")["cuda"] == "12.8"


def test_a_build_for_another_cuda_has_its_own_cuda_and_keeps_no_fact_of_the_other_build() -> None:
    other = SHIPPED.of("torch", "2.8.0+cu129")
    assert other["cuda"] == "12.9"
    assert other["triton"] == "3.4.0"
    assert not {"archs", "cudnn", "nccl"} & other.keys()
    assert SHIPPED.of("torch", "2.11.0+cu130") == SHIPPED.of("torch", "2.11.0")
    assert "cuda" not in SHIPPED.of("torch", "2.13.0+cpu")


@pytest.mark.parametrize("text", ["nightly", "installed", ">=2.8", "2.99.0"])
def test_nothing_is_known_of_what_is_no_released_version(text: str) -> None:
    assert SHIPPED.of("torch", text) == {}


def test_an_axis_that_is_left_out_is_what_goes_without_saying() -> None:
    look = SHIPPED.look({"torch": "2.13.0"}, {})
    assert look("vllm", "kind") == "none"
    assert look("triton", "kind") == "bundled"
    assert look("triton", "ptxas") == "12.8.93"
    assert look("python", "") == axis.parse("python", axis.implied("python"))


def test_every_version_in_the_shipped_tables_is_a_version_of_its_axis() -> None:
    for name, releases in (("torch", SHIPPED.torch), ("vllm", SHIPPED.vllm)):
        for release in releases:
            for text in release.versions:
                assert axis.parse(name, text.removesuffix(".*")).version is not None
    for release in SHIPPED.vllm:
        assert axis.parse("torch", release.torch or "").version is not None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[[torch]]\nversions = ["2.8.0", "2.8.0"]', "torch[0]: 2.8.0 is there twice"),
        ('[[torch]]\nversions = ["2.8.x"]', "neither a version nor a series"),
        ('[[torch]]\nversions = ["2.8.0"]\ncudda = "12.8"', "Did you mean 'cuda'?"),
        ('[[torch]]\ncuda = "12.8"', "the key 'versions' is missing"),
        ('[[torhc]]\nversions = ["2.8.0"]', "Did you mean 'torch'?"),
    ],
)
def test_a_broken_table_is_a_configuration_error(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "facts.toml"
    path.write_text(table, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        facts.load(path)
    assert caught.value.what.startswith("facts.toml: ")
    assert message in caught.value.what
