"""Our own kernel compiles for every architecture in a real cell, which has Triton and its ptxas."""

from __future__ import annotations

import os
import subprocess

from checkouts import CELL, Project


def test_the_kernel_compiles_for_every_architecture_without_a_gpu(proven: Project) -> None:
    """A choice of launches that has every feature on each; the whole is a command of its own."""
    suite = proven.root / "tests" / "attention"
    done = subprocess.run(
        [
            *(proven.python(CELL), "-m", "pytest", suite / "test_compile.py"),
            *("-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", suite),
        ],
        env=proven.environment(TRITON_CACHE_DIR=str(proven.root / "triton")),
        cwd=suite,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
