"""Tests of what a machine says of itself."""

import os
import sys
from pathlib import Path

import pytest

from pinproof.run import machine


@pytest.fixture(autouse=True)
def anew() -> None:
    machine.this_machine.cache_clear()


def tool(directory: Path, says: str) -> None:
    """Put a program that stands for nvidia-smi first on the search path: no GPU is here."""
    path = directory / "nvidia-smi"
    path.write_text(f"#!{sys.executable}\nprint({says!r})\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "target"),
    [
        ("9.0, NVIDIA H100 80GB HBM3, 580.95.05\n9.0, NVIDIA H100 80GB HBM3, 580.95.05", "sm_90"),
        ("12.0, NVIDIA GeForce RTX 5090, 575.51", "sm_120"),
        ("No devices were found", "cpu"),
    ],
)
def test_the_first_gpu_is_the_target(
    says: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, says)
    monkeypatch.setenv("PATH", str(tmp_path))
    here = machine.this_machine()
    assert here.target == target
    assert here.gpu == ("" if target == "cpu" else says.split("\n")[0].split(", ")[1])


def test_without_the_tool_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    here = machine.this_machine()
    assert (here.target, here.gpu, here.driver) == ("cpu", "", "")
    assert str(here).startswith("no GPU, ")


def test_evidence_names_the_processor_and_the_c_library_and_no_size() -> None:
    here = machine.this_machine()
    assert here.cores == len(os.sched_getaffinity(0))
    assert here.memory_gib > 0
    assert set(here.facts()) == {"target", "gpu", "driver", "cpu", "platform"}
    assert "glibc" in here.facts()["platform"]
