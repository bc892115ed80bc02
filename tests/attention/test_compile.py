"""The reference compiles for every architecture that we ship, with no GPU in the machine."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest
from compile_kernel import MACHINES, SEEN, cover, everything, wrong

from pinproof_cell.suite.grid import suite

#: Children that compile at the same time.
CHILDREN = 2


@functools.cache
def answers() -> list[dict[str, Any]]:
    """Compile the chosen cases; `compile_kernel.py` by itself compiles all."""
    return everything(CHILDREN, chosen=True)


def no_assembler() -> str | None:
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    if bundled.exists() or shutil.which("ptxas"):
        return None
    return "this Triton brings no ptxas, and PATH has none"


@pytest.mark.parametrize("architecture", MACHINES)
def test_every_launch_compiles_and_fits_into_shared_memory(architecture: str) -> None:
    """Each chosen launch compiles, and its shared memory fits into a block's: or it is named."""
    if reason := no_assembler():
        pytest.skip(reason)
    found = [each for each in answers() if each.get("architecture", architecture) == architecture]
    assert not wrong(found)
    assert found


@pytest.mark.parametrize("architecture", MACHINES)
def test_the_chosen_cases_have_every_feature_that_a_kernel_sees(architecture: str) -> None:
    asked = SEEN & {feature for case in suite("full", "cuda") for feature in case.features}
    chosen = cover(architecture)
    assert {feature for case in chosen for feature in case.features} >= asked
    assert len(chosen) < 15


def test_a_launch_that_wants_too_much_shared_memory_is_named() -> None:
    """Of what compiles only that counts which a block of its GPU can hold; no code is wrong too."""
    limit = MACHINES["sm_120"].shared
    found = [
        {"architecture": "sm_120", "name": str(shared), "shared": shared, "code": code}
        for shared, code in ((limit, 1), (limit + 1, 1), (0, 0))
    ]
    found.append({"name": "a child", "error": "status -11"})
    assert limit == 101_376
    assert set(wrong(found)) == {str(limit + 1), "0", "a child"}
