"""The `pinproof` command: the same verbs as the nox sessions, each also with ``--json``."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pinproof import options, workflow
from pinproof.errors import ExitCode, PinproofError
from pinproof.evidence.store import Store
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile, selection
from pinproof.options import Options
from pinproof.plan.stage import Stage
from pinproof.report import defects as known
from pinproof.report import explain as explanation
from pinproof.report import report, results
from pinproof.run.machine import this_machine

app = typer.Typer(
    name="pinproof",
    help="Proves which torch, CUDA, flash-attn and vLLM combination is safe to pin on a GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MatrixName = Annotated[
    str | None, typer.Option("--matrix", metavar="NAME", help="the matrix; else this machine's")
]
MatrixFileOption = Annotated[
    Path | None, typer.Option("--matrix-file", metavar="FILE", help="default: matrix.toml")
]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="evidence; default: .pinproof")
]
CellIds = Annotated[
    list[str] | None, typer.Option("--cell", metavar="ID", help="only this cell; may be repeated")
]
Select = Annotated[
    str, typer.Option("--select", metavar="EXPR", help="cells: torch >= '2.11' and vllm != 'none'")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="STAGE", help="the last stage to run")
]
BackendOption = Annotated[
    str | None, typer.Option("--backend", metavar="NAME", help="uv or system, for every cell")
]
Python = Annotated[
    str | None,
    typer.Option("--python", metavar="EXE", help="the interpreter that the system back end uses"),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", metavar="N", help="steps side by side")]
Fresh = Annotated[bool, typer.Option("--fresh", help="measure again what evidence is there for")]
Offline = Annotated[bool, typer.Option("--offline", help="no network")]
WheelhouseOption = Annotated[
    Path | None, typer.Option("--wheelhouse", metavar="DIR", help="the only place wheels come from")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 safe, 1 unsafe, 2 configuration, 3 nothing ran, 4 machine."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "·" is no reason to end
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="pinproof")
    except PinproofError as error:
        print(f"pinproof: {error}", file=sys.stderr)
        code = error.exit_code
    except typer.TyperException as error:
        tell = getattr(error, "format_message", error.__str__)
        message = tell()
        print(f"pinproof: {message}\n  next step: pinproof --help", file=sys.stderr)
        code = ExitCode.CONFIGURATION
    except (typer.Abort, KeyboardInterrupt):
        print("pinproof: interrupted", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    except OSError as error:
        code = _no_output(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _no_output(error)
    sys.exit(int(code or 0))


def _no_output(error: OSError) -> ExitCode:
    """Say that standard output cannot be written; that is no verdict on any cell."""
    with contextlib.suppress(OSError):
        print(f"pinproof: cannot write the output: {error.strerror}", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ExitCode.INFRASTRUCTURE


@app.command()
def expand(
    matrix: Annotated[
        str | None, typer.Option("--matrix", metavar="NAME", help="the matrix; else all")
    ] = None,
    select: Select = "",
    matrix_file: MatrixFileOption = None,
    as_json: AsJson = False,
) -> ExitCode:
    """List every cell, the excluded ones with their rule.

    Example: pinproof expand --matrix blackwell-release --select "torch >= '2.11'"
    """
    file = matrixfile.load(_given(matrix_file, "matrix.toml"))
    chosen = [file.named(matrix)] if matrix else list(file.matrices)
    found = cells.select((cell for each in chosen for cell in cells.expand(each)), select)
    if as_json:
        _print_json({"schema": 1, "cells": [explanation.cell_document(cell) for cell in found]})
    for cell in found if not as_json else ():
        why = f"EXCLUDED {cell.exclusion.rule}: {cell.exclusion.reason}" if cell.exclusion else ""
        print(f"{cell.id:<14} {cell.matrix:<18} {cell.label}  {why}".rstrip())
    return ExitCode.OK


@app.command()
def plan(
    matrix: MatrixName = None,
    cell: CellIds = None,
    select: Select = "",
    until: Until = None,
    backend: BackendOption = None,
    python: Python = None,
    fresh: Fresh = False,
    offline: Offline = False,
    wheelhouse: WheelhouseOption = None,
    matrix_file: MatrixFileOption = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Say what a run would do, and the reason for every step; nothing is changed.

    Example: pinproof plan --matrix cpu --until inspect
    """
    asked = _options(**{**locals(), "dry_run": True})
    proof = workflow.run(asked, _talk(as_json))
    if as_json:
        _print_json(proof.document)
    return proof.exit_code


@app.command()
def run(
    matrix: MatrixName = None,
    cell: CellIds = None,
    select: Select = "",
    until: Until = None,
    backend: BackendOption = None,
    python: Python = None,
    jobs: Jobs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print the plan")] = False,
    fresh: Fresh = False,
    offline: Offline = False,
    wheelhouse: WheelhouseOption = None,
    matrix_file: MatrixFileOption = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> ExitCode:
    r"""Prove the cells of a matrix, and print which are safe to pin.

    Without --matrix: the default matrix of this machine's GPU, or `cpu` where it has none.
    Exit code: 0 every required cell is SAFE, 1 one is not, 2 configuration, 3 nothing ran,
    4 the machine or the harness failed, 130 interrupted.

    \b
    Examples:
      pinproof run --matrix hopper --select "vllm == '0.24.0'"
      pinproof run --cell cpu-ccda2b --until correctness
      pinproof run --offline --wheelhouse wheels --backend system
    """
    asked = _options(**locals())
    proof = workflow.run(asked, _talk(as_json))
    if asked.dry_run:
        if as_json:
            _print_json(proof.document)
        return proof.exit_code
    files = report.write(proof.whole, Store(asked.store).results_dir(proof.whole["matrix"]))
    if as_json:
        _print_json(proof.document)
    else:
        _show(proof.document, files)
    return proof.exit_code


@app.command(name="report")
def show(
    matrix: MatrixName = None,
    matrix_file: MatrixFileOption = None,
    store: StoreOption = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="as Markdown")] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Print the table of the last run again. The exit code is that run's.

    Example: pinproof report --matrix hopper --markdown
    """
    file = matrixfile.load(_given(matrix_file, "matrix.toml"))
    chosen = file.named(matrix) if matrix else selection.default_matrix(file, this_machine())
    directory = Store(_given(store, ".pinproof")).results_dir(chosen.name)
    document = results.read(directory / "results.json")
    if as_json:
        _print_json(document)
    elif markdown:
        print(report.markdown(document), end="")
    else:
        _show(document, (directory / "results.json", directory / "results.md"))
    return ExitCode(document["exit_code"])


@app.command()
def explain(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="the id of a cell")],
    matrix: MatrixName = None,
    matrix_file: MatrixFileOption = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Say everything that is known of a cell: axes, rules, verdict, evidence, logs.

    Example: pinproof explain cpu-ccda2b
    """
    asked = _options(cell=[cell], matrix=matrix, matrix_file=matrix_file, store=store)
    row = workflow.recall(asked).rows[0]
    matrix_of = matrixfile.load(asked.matrix_file).named(row.cell.matrix)
    document = explanation.document(row, matrix_of, asked.store)
    if as_json:
        _print_json(document)
    else:
        print(explanation.text(document), end="")
    return ExitCode.OK


@app.command()
def pins(
    cell: Annotated[str, typer.Argument(metavar="[CELL|best]", help="a safe cell")] = "best",
    matrix: MatrixName = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where to write")] = Path(
        "pins"
    ),
    backend: BackendOption = None,
    python: Python = None,
    matrix_file: MatrixFileOption = None,
    store: StoreOption = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Write constraints.txt and PINS.md of a cell that is SAFE, from its stored evidence.

    Example: pinproof pins best --matrix cpu --out pins
    """
    chosen = [] if cell == "best" else [cell]
    asked = _options(
        cell=chosen,
        matrix=matrix,
        backend=backend,
        python=python,
        matrix_file=matrix_file,
        store=store,
    )
    written = workflow.pin(asked, options.root() / out)
    if as_json:
        _print_json({"schema": 1, "files": [str(path) for path in written]})
    else:
        print(*written, sep="\n")
    return ExitCode.OK


@app.command()
def defects(as_json: AsJson = False) -> ExitCode:
    """List the known defects of the kernels under test, and what not to call for each.

    Example: pinproof defects --json
    """
    document = known.document()
    if as_json:
        _print_json(document)
    else:
        print(known.text(document))
    return ExitCode.OK


@app.command()
def schema() -> ExitCode:
    """Print the JSON Schema of matrix.toml, for editors."""
    _print_json(matrixfile.json_schema())
    return ExitCode.OK


def _options(**given: Any) -> Options:
    """Build the options from what a command was given; see `Options` for their meaning."""
    until = given.get("until")
    wheelhouse = given.get("wheelhouse")
    return Options(
        matrix_file=_given(given.get("matrix_file"), "matrix.toml"),
        store=_given(given.get("store"), ".pinproof"),
        matrix=given.get("matrix"),
        cells=tuple(given.get("cell") or ()),
        select=given.get("select") or "",
        until=Stage.parse(until) if until is not None else None,
        backend=given.get("backend"),
        python=given.get("python"),
        jobs=given.get("jobs"),
        dry_run=bool(given.get("dry_run")),
        fresh=bool(given.get("fresh")),
        offline=bool(given.get("offline")),
        wheelhouse=wheelhouse.absolute() if wheelhouse else None,
    )


def _given(path: Path | None, name: str) -> Path:
    return path.absolute() if path is not None else options.root() / name


def _talk(as_json: bool) -> Any:
    """Return where progress goes: with --json standard output is for the document alone."""
    return sys.stderr if as_json else sys.stdout


def _show(document: Any, files: Sequence[Path]) -> None:
    width, colour = report.width_of(sys.stdout), report.wants_colour(sys.stdout)
    print(report.terminal(document, width=width, colour=colour))
    print(*(f"written    {path}" for path in files), sep="\n")


def _print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    print()
