"""Verbs that prove cells, and tell what is known of them."""

from __future__ import annotations

import sys
from typing import Any

from pinproof import workflow
from pinproof.command import Asked, Verbs, option, switch
from pinproof.errors import ExitCode
from pinproof.evidence.store import Store
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile, selection
from pinproof.report import explain as explanation
from pinproof.report import report, results
from pinproof.run.machine import this_machine
from pinproof.verbs.shared import (
    FILE,
    JSON,
    MATRIX,
    RUN,
    SELECT,
    STORE,
    given,
    options_of,
    print_json,
)

verbs = Verbs()


@verbs.verb(
    "expand",
    option("--matrix", metavar="NAME", help="the matrix; else all"),
    *(SELECT, FILE, JSON),
    examples=["pinproof expand --matrix blackwell-release --select \"torch >= '2.11'\""],
)
def expand(asked: Asked) -> ExitCode:
    """List every cell, the excluded ones with their rule."""
    file = matrixfile.load(given(asked.matrix_file, "matrix.toml"))
    chosen = [file.named(asked.matrix)] if asked.matrix else list(file.matrices)
    found = cells.select((cell for each in chosen for cell in cells.expand(each)), asked.select)
    if asked.json:
        print_json({"schema": 1, "cells": [explanation.cell_document(cell) for cell in found]})
    for cell in found if not asked.json else ():
        why = f"EXCLUDED {cell.exclusion.rule}: {cell.exclusion.reason}" if cell.exclusion else ""
        print(f"{cell.id:<14} {cell.matrix:<18} {cell.label}  {why}".rstrip())
    return ExitCode.OK


@verbs.verb("plan", RUN, examples=["pinproof plan --matrix cpu --until inspect"])
def plan(asked: Asked) -> ExitCode:
    """Say what a run would do, and the reason for every step; nothing is changed."""
    asked.dry_run = True
    return run(asked)


@verbs.verb(
    "run",
    RUN,
    option("-j", "--jobs", metavar="N", type=int, help="steps side by side"),
    switch("--dry-run", "only print the plan"),
    examples=[
        "pinproof run --matrix hopper --select \"vllm == '0.24.0'\"",
        "pinproof run --cell cpu-ccda2b --until correctness",
        "pinproof run --offline --wheelhouse wheels --backend system",
    ],
)
def run(asked: Asked) -> ExitCode:
    """Prove the cells of a matrix, and print which are safe to pin.

    Without --matrix: the default matrix of this machine's GPU, or `cpu` where it has none.
    Exit code: 0 every required cell is SAFE, 1 one is not, 2 configuration, 3 nothing ran,
    4 the machine or the harness failed, 130 interrupted.
    """
    resolved = options_of(asked)
    # With --json standard output is for the document alone.
    proof = workflow.run(resolved, sys.stderr if asked.json else sys.stdout)
    if asked.json:
        print_json(proof.document)
    if resolved.dry_run:
        return proof.exit_code
    # First the table: a disk that is full must not take it from the user.
    if not asked.json:
        _show(proof.document)
    directory = Store(resolved.store).results_dir(proof.document["matrix"])
    files = report.write(proof.document, directory)
    if not asked.json:
        print(*(f"written    {path}" for path in files), sep="\n")
    return proof.exit_code


@verbs.verb(
    *("report", MATRIX, FILE, STORE, JSON, switch("--markdown", "as Markdown")),
    examples=["pinproof report --matrix hopper --markdown"],
)
def show(asked: Asked) -> ExitCode:
    """Print the table of the last run again. The exit code is that run's."""
    file = matrixfile.load(given(asked.matrix_file, "matrix.toml"))
    chosen = (
        file.named(asked.matrix) if asked.matrix else selection.default_matrix(file, this_machine())
    )
    directory = Store(given(asked.store, ".pinproof")).results_dir(chosen.name)
    again = "nox -s matrix" + (f" -- --matrix {chosen.name}" if asked.matrix else "")
    document = results.read(directory / "results.json", run=again)
    if asked.json:
        print_json(document)
    elif asked.markdown:
        print(report.markdown(document), end="")
    else:
        _show(document)
    return ExitCode(document["exit_code"])


@verbs.verb(
    "explain",
    option("cell", metavar="CELL", help="the id of a cell"),
    *(MATRIX, FILE, STORE, JSON),
    examples=["pinproof explain cpu-ccda2b"],
)
def explain(asked: Asked) -> ExitCode:
    """Say everything that is known of a cell: axes, rules, verdict, evidence, logs."""
    asked.cells = [asked.cell]
    resolved = options_of(asked)
    row = workflow.recall(resolved).rows[0]
    matrix = matrixfile.load(resolved.matrix_file).named(row.cell.matrix)
    document = explanation.document(row, matrix, resolved.store)
    if asked.json:
        print_json(document)
    else:
        print(explanation.text(document), end="")
    return ExitCode.OK


@verbs.verb("schema", examples=["pinproof schema > matrix.schema.json"])
def schema(_: Asked) -> ExitCode:
    """Print the JSON Schema of matrix.toml, for editors."""
    print_json(matrixfile.json_schema())
    return ExitCode.OK


def _show(document: Any) -> None:
    width, colour = report.width_of(sys.stdout), report.wants_colour(sys.stdout)
    print(report.terminal(document, width=width, colour=colour), flush=True)
