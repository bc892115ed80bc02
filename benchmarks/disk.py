"""Five torch cells on disk against one, every inode counted once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from benchmarks.checkout import NOX, copy, timed
from benchmarks.claim import Claim

MOST = 1.4
TRITONS = ("3.6.0", "3.7.0", "3.7.1", "3.8.0", "3.9.0")

MATRIX = """format = 1
[targets.cpu]
[[matrix]]
name = "disk"
target = "cpu"
axes = {{ torch = ["2.13.0"], triton = [{tritons}] }}
"""


def measure(scratch: Path) -> Claim:
    """Install and import five cells that differ in their triton, and count what they take.

    Inspected, and not only installed: the first import writes the byte code, which no two cells
    share.
    """
    root = copy(scratch / "project")
    tritons = ", ".join(f'"{version}"' for version in TRITONS)
    (root / "matrix.toml").write_text(MATRIX.format(tritons=tritons), encoding="utf-8")
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
        held=ratio <= MOST and len(homes) == len(TRITONS),
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
