"""Collect the wheels that a matrix installs, for a machine without a network.

Take the directory there, and run ``nox -s matrix -- --offline --wheelhouse DIR``. Needs
Pinproof itself: ``pip install -e .`` in a checkout, or the environment that nox made.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from pinproof.errors import PinproofError
from pinproof.locks import collect
from pinproof.locks.collect import Order
from pinproof.locks.wheelhouse import HOST, House

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Collect, and print what was collected. Returns the exit code."""
    asked = _parser().parse_args()
    console = Console(stderr=True)
    try:
        order = Order(
            matrix_file=asked.matrix_file,
            matrix=asked.matrix,
            out=asked.out,
            python=asked.python,
            platform=asked.platform or collect.this_platform(),
            requirements=collect.host_requirements(ROOT / "pyproject.toml"),
            installed=collect.read_frozen(asked.installed) if asked.installed else None,
            backend=asked.backend,
            select=asked.select,
        )
        columns = (
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("start")
            house = collect.make(
                order,
                lambda text, done, total: progress.update(
                    task, description=text[:80], completed=done, total=total
                ),
            )
    except PinproofError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return int(error.exit_code)
    _summary(house)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Collect the wheels that a matrix installs, for a machine without a network.",
        epilog="example: make_wheelhouse.py --matrix hopper --out wheels --python 3.12",
    )
    add = parser.add_argument
    add("--matrix", required=True, metavar="NAME", help="the matrix whose cells are collected")
    add(
        *("--out",),
        required=True,
        type=Path,
        metavar="DIR",
        help="the directory; wheels that lie in it are kept",
    )
    here = "{}.{}".format(*sys.version_info[:2])
    add("--python", default=here, metavar="3.12", help=f"the target's Python; default: {here}")
    add("--platform", default="", help="the target's platform, such as x86_64-manylinux_2_35")
    add(
        *("--installed",),
        type=Path,
        metavar="FILE",
        help="what pip freeze or pip list printed on the target",
    )
    add("--backend", help="uv or system, for every cell")
    add("--select", default="", metavar="EXPR", help="an expression that chooses cells")
    add("--matrix-file", type=Path, default=ROOT / "matrix.toml", help="default: matrix.toml")
    return parser


def _summary(house: House) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{house.directory}: {len(house.wheels)} wheels, {house.size / 1e6:,.0f} MB,"
        f" for Python {house.python} on {house.platform}"
    )
    for owner, key in house.cells.items():
        entry = house.entries[key]
        own = [wheel for wheel in house.wheels if owner in wheel.cells]
        size = f"{len(own):4} wheels {sum(wheel.size for wheel in own) / 1e6:8,.0f} MB"
        what = "Pinproof itself" if owner == HOST else entry.conflict[:120]
        console.print(f"  {owner:16} {size}  {what}", markup=False)
    for note in house.notes:
        console.print(f"  note: {note}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
