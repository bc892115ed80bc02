"""Five and ten cells of one torch on disk against one, every inode counted once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.checkout import NOX, copy, timed
from benchmarks.claim import Claim
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile

#: How many cells, and how often the room of one they may take.
MOST = {5: 1.4, 10: 1.5}
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
    """Install and import cells of one torch and one triton that differ in their numpy.

    The first five have five numpys, the others have these once more. Imported, and not only
    installed: the first import writes the byte code, which no two cells share. Cells of different
    tritons cannot be so near to one another: each triton is 0.6 to 1 GB of other files.
    """
    root = copy(scratch / "project")
    count = max(MOST)
    pythons = [f"{PYTHON}.{number}" for number in range(count)]
    text = MATRIX.format(pythons=", ".join(f'"{python}"' for python in pythons))
    for number, python in enumerate(pythons):
        text += OVERRIDE.format(python=python, numpy=NUMPYS[number % len(NUMPYS)])
    (root / "matrix.toml").write_text(text, encoding="utf-8")
    words = ("-s", "matrix", "--", "--matrix", "disk", "--until", "inspect")
    timed((*NOX, *words), root, code=3)  # nothing was proven, as nothing was asked
    homes = _by_python(root, pythons)
    one = max(taken([home]) for home in homes)
    seen = {number: taken(homes[:number]) for number in MOST}
    told = ", ".join(
        f"{number} take {together / one:.2f} x ({together / 1e6:,.0f} MB)"
        for number, together in seen.items()
    )
    return Claim(
        name="disk",
        asked=" and ".join(
            f"{n} cells of a torch within {most} x of one" for n, most in MOST.items()
        ),
        seen=f"one takes {one / 1e6:,.0f} MB, {told}",
        held=all(seen[number] / one <= most for number, most in MOST.items()),
        data={"each": {home.name: taken([home]) for home in homes}, "together": seen},
    )


def _by_python(root: Path, pythons: Sequence[str]) -> list[Path]:
    """Return the environment of each cell, in the order of its value for the python axis."""
    file = matrixfile.load(root / "matrix.toml")
    ids = {cell.axis("python"): cell.id for cell in cells.expand(file.named("disk"))}
    homes = [root / ".nox" / ids[python] for python in pythons]
    if missing := [home.name for home in homes if not (home / "bin").is_dir()]:
        raise RuntimeError(f"no environment was made for {', '.join(missing)}")
    return homes


def taken(roots: Iterable[Path]) -> int:
    """Return the bytes that the directories take on disk together."""
    seen: dict[tuple[int, int], int] = {}
    for root in roots:
        for directory, _, files in os.walk(root):
            for name in (".", *files):
                status = Path(directory, name).lstat()
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
