"""Collect the wheels that a matrix installs, for a machine without a network.

Take the directory there, and run ``nox -s matrix -- --offline --wheelhouse DIR``. Needs
Pinproof itself: ``pip install -e .`` in a checkout, or the environment that nox made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from pinproof.errors import PinproofError
from pinproof.locks import collect
from pinproof.locks.collect import Order
from pinproof.locks.wheelhouse import HOST, House

ROOT = Path(__file__).parent.parent


def make(
    matrix: Annotated[str, typer.Option(help="the matrix whose cells are collected")],
    out: Annotated[Path, typer.Option(help="the directory; wheels that lie in it are kept")],
    python: Annotated[str, typer.Option(help="the target's Python", metavar="3.12")] = (
        "{}.{}".format(*sys.version_info[:2])
    ),
    platform: Annotated[
        str, typer.Option(help="the target's platform, such as x86_64-manylinux_2_35")
    ] = "",
    installed: Annotated[
        Path | None, typer.Option(help="what pip freeze or pip list printed on the target")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="uv or system, for every cell")] = None,
    select: Annotated[str, typer.Option(help="an expression that chooses cells")] = "",
    matrix_file: Annotated[Path, typer.Option(help="the matrix file")] = ROOT / "matrix.toml",
) -> None:
    """Collect the wheels that a matrix installs, for a machine without a network."""
    console = Console(stderr=True)
    try:
        order = Order(
            matrix_file=matrix_file,
            matrix=matrix,
            out=out,
            python=python,
            platform=platform or collect.this_platform(),
            requirements=collect.host_requirements(ROOT / "pyproject.toml"),
            installed=collect.read_frozen(installed) if installed else None,
            backend=backend,
            select=select,
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
        raise typer.Exit(int(error.exit_code)) from None
    _summary(house)


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
    typer.run(make)
