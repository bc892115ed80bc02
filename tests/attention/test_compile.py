"""The reference compiles for every architecture that we ship, with no GPU in the machine."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from compile_kernel import MACHINES

from pinproof_cell.world import child

SCRIPT = Path(__file__).with_name("compile_kernel.py")


#: Children that compile at the same time.
CHILDREN = 2


@functools.cache
def answers() -> list[dict[str, Any]]:
    """Compile all configurations, in children that do not interpret."""
    environment = child.environment("sm_120")
    environment.pop("TRITON_INTERPRET", None)
    words = [sys.executable, os.fspath(SCRIPT)]
    children = [
        subprocess.Popen(
            [*words, str(index), str(CHILDREN)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(CHILDREN)
    ]
    found = []
    with ThreadPoolExecutor(CHILDREN) as pool:
        outputs = list(pool.map(lambda process: process.communicate(timeout=900), children))
    for process, (said, wrong) in zip(children, outputs, strict=True):
        found += map(json.loads, said.splitlines())
        if process.returncode:
            last = found[-1]["name"] if found else "nothing"
            error = f"status {process.returncode} after {last}: {wrong[-1000:]}"
            found.append({"name": "a child", "error": error})
    return found


def no_assembler() -> str | None:
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    if bundled.exists() or shutil.which("ptxas"):
        return None
    return "this Triton brings no ptxas, and PATH has none"


@pytest.mark.parametrize("architecture", MACHINES)
def test_every_launch_compiles_and_fits_into_shared_memory(architecture: str) -> None:
    """Each distinct launch of the suite compiles, and its shared memory fits into a block's."""
    if reason := no_assembler():
        pytest.skip(reason)
    found = [each for each in answers() if each.get("architecture", architecture) == architecture]
    wrong = {
        each["name"]: each.get("error", f"{each.get('shared')} bytes of shared memory")
        for each in found
        if "error" in each or each["shared"] > MACHINES[architecture].shared or not each["code"]
    }
    assert not wrong
    assert any(each["architecture"] == architecture for each in found)
