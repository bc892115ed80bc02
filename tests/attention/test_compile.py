"""The reference compiles for every architecture that we ship, with no GPU in the machine."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compile_kernel import SHARED, configurations

from pinproof_cell.world import child

SCRIPT = Path(__file__).with_name("compile_kernel.py")


@functools.cache
def answers(architecture: str) -> dict[str, dict[str, Any]]:
    """Compile all configurations in one child that does not interpret."""
    environment = child.environment("sm_120")
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, os.fspath(SCRIPT), architecture],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    found = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    if done.returncode:
        found["died"] = {"error": f"status {done.returncode}: {done.stderr[-1000:]}"}
    return found


def no_assembler() -> str | None:
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    if bundled.exists() or shutil.which("ptxas"):
        return None
    return "this Triton brings no ptxas, and PATH has none"


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        pytest.param(architecture, name, id=name)
        for architecture in SHARED
        for name in configurations(architecture)
    ],
)
def test_compiles_and_fits_into_shared_memory(architecture: str, name: str) -> None:
    """The configuration compiles, and its shared memory fits the architecture's block."""
    if reason := no_assembler():
        pytest.skip(reason)
    found = answers(architecture)
    answer = found.get(name, found.get("died", {"error": "the child told nothing"}))
    assert "error" not in answer, answer["error"]
    assert answer["shared"] <= SHARED[architecture]
    assert answer["code"] > 0
