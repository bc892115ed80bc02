"""Five torch cells on disk against one, every inode counted once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.checkout import NOX, copy, timed
from benchmarks.claim import Claim

MOST = 1.4
NUMPYS = ("2.2.6", "2.3.0", "2.3.2", "2.3.4", "2.3.5")
PYTHON = "{}.{}".format(*sys.version_info[:2])

# The patch releases of one Python make cells of their own, to hang the numpys on.
MATRIX = """format = 1
[targets.cpu]
[[matrix]]
name = "disk"
target = "cpu"
axes = {{ torch = ["2.13.0"], triton = ["3.9.0"], python = [{pythons}] }}
"""

OVERRIDE = """
[[matrix.overrides]]
select = 'python == "{python}"'
requirements = ["numpy=={numpy}"]
"""


def measure(scratch: Path) -> Claim:
    """Install and import five cells of one torch and one triton that differ in their numpy.

    Imported, and not only installed: the first import writes the byte code, which no two cells
    share. Cells of different tritons cannot be so near to one another: each triton is 0.6 to
    1 GB of other files.
    """
    root = copy(scratch / "project")
    pythons = [f"{PYTHON}.{number}" for number in range(len(NUMPYS))]
    text = MATRIX.format(pythons=", ".join(f'"{python}"' for python in pythons))
    for python, numpy in zip(pythons, NUMPYS, strict=True):
        text += OVERRIDE.format(python=python, numpy=numpy)
    (root / "matrix.toml").write_text(text, encoding="utf-8")
    words = ("-s", "matrix", "--", "--matrix", "disk", "--until", "inspect")
    timed((*NOX, *words), root, code=3)  # nothing was proven, as nothing was asked
    homes = sorted(root.glob(".nox/cpu-*"))
    one = max(taken([home]) for home in homes)
    five = taken(homes)
    ratio = five / one
    return Claim(
        name="disk",
        asked=f"five torch cells within {MOST} x of one",
        seen=f"{ratio:.2f} x ({five / 1e6:,.0f} MB against {one / 1e6:,.0f} MB)",
        held=ratio <= MOST and len(homes) == len(NUMPYS),
        data={"each": {home.name: taken([home]) for home in homes}, "together": five},
    )


def taken(roots: Iterable[Path]) -> int:
    """Return the bytes that the directories take on disk together."""
    seen: dict[tuple[int, int], int] = {}
    for root in roots:
        for directory, _, files in os.walk(root):
            for name in (".", *files):
                status = Path(directory, name).lstat()
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
