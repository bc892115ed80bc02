"""The `pinproof` command: the same verbs as the nox sessions, each also with ``--json``."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from pinproof import fuzz, options, workflow
from pinproof.command import Asked, Command, option, switch
from pinproof.errors import ExitCode, PinproofError
from pinproof.evidence.store import Store, write_json
from pinproof.locks.download import Target
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile, selection
from pinproof.options import Options
from pinproof.plan.stage import Stage
from pinproof.report import defects as known
from pinproof.report import explain as explanation
from pinproof.report import report, results
from pinproof.run.execute import now
from pinproof.run.machine import this_machine

command = Command(
    "pinproof",
    "Proves which torch, CUDA, flash-attn and vLLM combination is safe to pin on a GPU.",
)

_MATRIX = option("--matrix", metavar="NAME", help="the matrix; else this machine's")
_SELECT = option(
    "--select", metavar="EXPR", default="", help="cells: torch >= '2.11' and vllm != 'none'"
)
_CELLS = option(
    "--cell", dest="cells", metavar="ID", action="append", help="only this cell; may be repeated"
)
_BACKEND = (
    option("--backend", metavar="NAME", help="uv, system or conda, for every cell"),
    option("--python", metavar="EXE", help="the interpreter that the system back end uses"),
)
_WHEELHOUSE = option(
    "--wheelhouse", metavar="DIR", type=Path, help="the only place wheels come from"
)
_FILE = option("--matrix-file", metavar="FILE", type=Path, help="default: matrix.toml")
_STORE = option("--store", metavar="DIR", type=Path, help="evidence; default: .pinproof")
_JSON = switch("--json", "JSON on standard output")

#: What chooses and describes a run, whether it is made or only planned.
_RUN = (
    _MATRIX,
    _CELLS,
    _SELECT,
    option("--until", metavar="STAGE", help="the last stage to run"),
    *_BACKEND,
    switch("--fresh", "measure again what evidence is there for"),
    switch("--sanitize", "also call every candidate under compute-sanitizer"),
    switch("--offline", "no network"),
    _WHEELHOUSE,
    _FILE,
    _STORE,
    _JSON,
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0 safe, 1 unsafe, 2 configuration, 3 nothing ran, 4 machine."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "·" is no reason to end
    try:
        code = command.run(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as told:  # --help
        code = ExitCode(int(told.code or 0))
    except PinproofError as error:
        print(f"pinproof: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("pinproof: interrupted", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    except OSError as error:
        code = _no_output(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _no_output(error)
    sys.exit(int(code))


def _no_output(error: OSError) -> ExitCode:
    """Say that standard output cannot be written; that is no verdict on any cell."""
    if not isinstance(error, BrokenPipeError):  # who closed it knows
        with contextlib.suppress(OSError):
            print(f"pinproof: cannot write the output: {error.strerror}", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ExitCode.INFRASTRUCTURE


@command.verb(
    "expand",
    option("--matrix", metavar="NAME", help="the matrix; else all"),
    *(_SELECT, _FILE, _JSON),
    examples=["pinproof expand --matrix blackwell-release --select \"torch >= '2.11'\""],
)
def expand(asked: Asked) -> ExitCode:
    """List every cell, the excluded ones with their rule."""
    file = matrixfile.load(_given(asked.matrix_file, "matrix.toml"))
    chosen = [file.named(asked.matrix)] if asked.matrix else list(file.matrices)
    found = cells.select((cell for each in chosen for cell in cells.expand(each)), asked.select)
    if asked.json:
        _print_json({"schema": 1, "cells": [explanation.cell_document(cell) for cell in found]})
    for cell in found if not asked.json else ():
        why = f"EXCLUDED {cell.exclusion.rule}: {cell.exclusion.reason}" if cell.exclusion else ""
        print(f"{cell.id:<14} {cell.matrix:<18} {cell.label}  {why}".rstrip())
    return ExitCode.OK


@command.verb("plan", _RUN, examples=["pinproof plan --matrix cpu --until inspect"])
def plan(asked: Asked) -> ExitCode:
    """Say what a run would do, and the reason for every step; nothing is changed."""
    asked.dry_run = True
    return run(asked)


@command.verb(
    "run",
    _RUN,
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
    resolved = _options(asked)
    # With --json standard output is for the document alone.
    proof = workflow.run(resolved, sys.stderr if asked.json else sys.stdout)
    if asked.json:
        _print_json(proof.document)
    if resolved.dry_run:
        return proof.exit_code
    # First the table: a disk that is full must not take it from the user.
    if not asked.json:
        _show(proof.document)
    files = report.write(proof.whole, Store(resolved.store).results_dir(proof.whole["matrix"]))
    if not asked.json:
        _written(files)
    return proof.exit_code


@command.verb(
    *("report", _MATRIX, _FILE, _STORE, _JSON, switch("--markdown", "as Markdown")),
    examples=["pinproof report --matrix hopper --markdown"],
)
def show(asked: Asked) -> ExitCode:
    """Print the table of the last run again. The exit code is that run's."""
    file = matrixfile.load(_given(asked.matrix_file, "matrix.toml"))
    chosen = (
        file.named(asked.matrix) if asked.matrix else selection.default_matrix(file, this_machine())
    )
    directory = Store(_given(asked.store, ".pinproof")).results_dir(chosen.name)
    document = results.read(directory / "results.json")
    if asked.json:
        _print_json(document)
    elif asked.markdown:
        print(report.markdown(document), end="")
    else:
        _show(document)
        _written((directory / "results.json", directory / "results.md"))
    return ExitCode(document["exit_code"])


@command.verb(
    "explain",
    option("cell", metavar="CELL", help="the id of a cell"),
    *(_MATRIX, _FILE, _STORE, _JSON),
    examples=["pinproof explain cpu-ccda2b"],
)
def explain(asked: Asked) -> ExitCode:
    """Say everything that is known of a cell: axes, rules, verdict, evidence, logs."""
    asked.cells = [asked.cell]
    resolved = _options(asked)
    row = workflow.recall(resolved).rows[0]
    matrix = matrixfile.load(resolved.matrix_file).named(row.cell.matrix)
    document = explanation.document(row, matrix, resolved.store)
    if asked.json:
        _print_json(document)
    else:
        print(explanation.text(document), end="")
    return ExitCode.OK


@command.verb(
    "pins",
    option("cell", metavar="CELL|best", nargs="?", default="best", help="a safe cell"),
    option("--out", metavar="DIR", type=Path, default=Path("pins"), help="where to write"),
    *(_MATRIX, *_BACKEND, _FILE, _STORE, _JSON),
    examples=["pinproof pins best --matrix cpu --out pins"],
)
def pins(asked: Asked) -> ExitCode:
    """Write constraints.txt and PINS.md of a cell that is SAFE, from its stored evidence."""
    from pinproof import takeaway

    asked.cells = [asked.cell]
    written = takeaway.pin(_options(asked), options.root() / asked.out)
    if asked.json:
        _print_json({"schema": 1, "files": [str(path) for path in written]})
    else:
        print(*written, sep="\n")
    return ExitCode.OK


@command.verb(
    "archive",
    option("cells", metavar="CELL|best", nargs="*", help="safe cells; else the best one"),
    option(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("archive"),
        help="the archive (default: archive); what lies there is kept",
    ),
    switch("--verify", "only read the archive again, and name the files that are damaged"),
    *(_MATRIX, *_BACKEND, switch("--offline", "no network"), _WHEELHOUSE, _FILE, _STORE, _JSON),
    examples=[
        "pinproof archive cpu-ccda2b --out /mnt/archive",
        "pinproof archive --verify --out /mnt/archive",
    ],
)
def archive(asked: Asked) -> ExitCode:
    """Keep the very files that SAFE cells install, from which they can be made without a network.

    Exit code: 1 a cell is not SAFE, or a file of the archive is damaged; 2 DIR holds something
    else; 4 a file could not be fetched.
    """
    from pinproof import takeaway
    from pinproof.locks import archive as archives

    out = options.root() / asked.out
    if asked.verify:
        damaged = archives.verify(out)
        if asked.json:
            _print_json({"schema": 1, "damaged": [asdict(each) for each in damaged]})
        else:
            print(*(f"damaged    {each}" for each in damaged), sep="\n")
            print(f"archive    {out}: {len(damaged)} files are damaged")
        return ExitCode.UNSAFE if damaged else ExitCode.OK
    house = takeaway.archive(
        _options(asked),
        out,
        lambda text, done, total: print(f"{done:>4}/{total} {text[:120]}", file=sys.stderr),
    )
    if asked.json:
        files = [asdict(wheel) for wheel in house.wheels]
        _print_json({"schema": 1, "cells": sorted(house.cells), "files": files})
    else:
        print(f"archive    {out}: {len(house.wheels)} wheels, {house.size / 1e6:,.0f} MB")
        print(*(f"cell       {cell}" for cell in sorted(house.cells)), sep="\n")
    return ExitCode.OK


@command.verb(
    "fuzz",
    option("cell", metavar="CELL", help="the id of a cell"),
    option(
        "--candidate",
        dest="candidates",
        metavar="NAME",
        action="append",
        help="only this kernel of it; may be repeated",
    ),
    option(
        "--seconds", metavar="N", type=float, default=60.0, help="how long for each (default: 60)"
    ),
    option("--seed", metavar="N", type=int, default=0, help="of cases and inputs (default: 0)"),
    *(_MATRIX, *_BACKEND, switch("--offline", "no network"), _WHEELHOUSE, _FILE, _STORE, _JSON),
    examples=[
        "pinproof fuzz cpu-ccda2b --seconds 120",
        "pinproof fuzz sm90-79a90d --candidate vllm-fa3 --seed 7",
    ],
)
def search(asked: Asked) -> ExitCode:
    """Search the kernels of a cell for failures, inside its environment.

    Each failure is made small, named where it is a known defect, and kept with a script that shows
    it. Exit code: 0 nothing new, 1 a failure that is no known defect, 3 nothing could be judged.
    """
    hunt = fuzz.Hunt(
        candidates=tuple(asked.candidates or ()), seconds=asked.seconds, seed=asked.seed
    )
    asked.cells = [asked.cell]
    found = fuzz.fuzz(_options(asked), hunt, sys.stderr if asked.json else sys.stdout)
    if asked.json:
        _print_json(fuzz.document(asked.cell, found))
    else:
        print(*fuzz.summary(found), sep="\n")
    return fuzz.exit_code(found)


@command.verb("defects", _JSON, examples=["pinproof defects --json"])
def defects(asked: Asked) -> ExitCode:
    """List the known defects of the kernels under test, and what not to call for each."""
    document = known.document()
    if asked.json:
        _print_json(document)
    else:
        print(known.text(document))
    return ExitCode.OK


@command.verb(
    "audit",
    option("subjects", metavar="SUBJECT", nargs="+", help="wheel, directory or requirement"),
    option("--arch", metavar="GPU", default="sm_120", help="such as sm_90; default: sm_120"),
    option("--torch", metavar="SUBJECT", default="", help="the torch to compare symbols with"),
    switch("--load", "load each library in a child of the environment"),
    switch("--compare", "ask cuobjdump about each library too"),
    option("--python", metavar="X.Y", default="3.12", help="whom wheels are fetched for"),
    option(
        "--platform",
        metavar="NAME",
        default="x86_64-manylinux_2_35",
        help="whom wheels are fetched for",
    ),
    option("--json", metavar="FILE", type=Path, help="write the findings as JSON"),
    examples=[
        "pinproof audit vllm==0.33.0 --torch torch==2.14.0",
        "pinproof audit dist/flash_attn-2.8.3-cp312-cp312-linux_x86_64.whl --arch sm_90",
        "pinproof audit .nox/sm120-7a3c15 --load --json audit.json",
    ],
)
def audit(asked: Asked) -> ExitCode:
    """Say which GPU code the shared libraries of a wheel, directory or environment hold.

    No GPU is needed, and nothing is installed. Statuses: NATIVE has machine code for the GPU,
    PTX-JIT is compiled by the driver, NONE has neither, NO-GPU-CODE is for the processor alone.
    Exit code: 0 everything could be read, 1 a library is cut off, lacks symbols, does not
    load, or cuobjdump reads it otherwise.
    """
    from pinproof.audit import arch as archs
    from pinproof.audit import audit as audits
    from pinproof.audit import listing

    order = audits.Order(
        gpu=archs.parse(asked.arch),
        target=Target(python=asked.python, platform=asked.platform),
        torch=asked.torch,
        load=asked.load,
        compare=asked.compare,
    )
    found = audits.run(asked.subjects, order, lambda each: print(listing.text(each), end="\n\n"))
    if asked.json is not None:
        write_json(asked.json, audits.document(found))
    return audits.exit_code(found)


@command.verb(
    "build",
    option("project", metavar="PROJECT", nargs="?", default="", help="flash-attn or vllm"),
    option(
        "source",
        metavar="SOURCE",
        nargs="?",
        default="",
        help="version, git+URL@REF, tree, or source archive",
    ),
    option("--arch", metavar="GPU", default="sm_120", help="such as sm_90; default: sm_120"),
    option("--profile", metavar="NAME", default="full", help="full, serving or custom"),
    option("--python", metavar="EXE", type=Path, required=True, help="has the torch to build for"),
    option("--cuda", metavar="X.Y", default="", help="the toolkit; else the one that is here"),
    option("--without", metavar="FEATURE", action="append", help="leave out; may be repeated"),
    option("--patch", metavar="FILE", type=Path, action="append", help="may be repeated"),
    option("--env", metavar="NAME=VALUE", action="append", help="may be repeated"),
    option("--attention", metavar="SOURCE", default="", help="vLLM: its FlashAttention's source"),
    option("-j", "--jobs", metavar="N", type=int, help="compilers side by side"),
    option("--order", metavar="FILE", type=Path, help="a build as JSON, in place of the rest"),
    option("--json", metavar="FILE", type=Path, help="write how the wheel came to be as JSON"),
    _STORE,
    examples=[
        "pinproof build flash-attn 2.8.3.post2 --arch sm_90 --profile serving --python python3",
        "pinproof build flash-attn git+https://github.com/Dao-AILab/flash-attention@main"
        " --python .nox/sm120/bin/python",
    ],
)
def build(asked: Asked) -> ExitCode:
    """Build one wheel from source, audit it, and keep it in the cache.

    A build that was stopped goes on where it was. Exit code: 1 it does not build, 2 the source or
    an option is wrong, 4 the machine, the network or the disk failed.
    """
    from pinproof.builds import verbs

    store = _given(asked.store, ".pinproof")
    say = functools.partial(print, flush=True)
    with verbs.refusing():
        wanted = (
            verbs.ordered(asked.order)
            if asked.order
            else verbs.described(
                asked.project,
                asked.source,
                arch=asked.arch,
                profile=asked.profile,
                python=asked.python,
                cuda=asked.cuda,
                without=asked.without or (),
                patches=asked.patch or (),
                env=asked.env or (),
                attention=asked.attention,
            )
        )
        print(verbs.build(wanted, store, asked.python, say, jobs=asked.jobs, json=asked.json))
    return ExitCode.OK


@command.verb(
    "cache",
    option(
        "action", metavar="list|verify|prune", help="what to do with the wheels that were built"
    ),
    option("--days", metavar="N", type=float, default=30.0, help="prune: unused for so long"),
    _STORE,
    examples=["pinproof cache verify", "pinproof cache prune --days 7"],
)
def cache(asked: Asked) -> ExitCode:
    """List the wheels that were built, check their bytes, or remove what is not used.

    A wheel that is not the one that was built is put into quarantine. Exit code: 1 there was one.
    """
    from pinproof.builds import verbs

    lines, well = verbs.cache(asked.action, _given(asked.store, ".pinproof"), asked.days)
    print(*lines, sep="\n")
    return ExitCode.OK if well else ExitCode.UNSAFE


@command.verb(
    "conda",
    option("action", metavar="lock|check|install", help="what to do with conda environments"),
    option("names", metavar="ENV", nargs="*", help="as in envs/; lock and check: default all"),
    option("--into", metavar="DIR", type=Path, help="install: where to"),
    option(
        "--with",
        dest="executable",
        metavar="EXE",
        default="",
        help="install: by conda-lock and conda, mamba or micromamba; else rattler installs",
    ),
    switch("--offline", "install: only what was downloaded before"),
    _STORE,
    examples=[
        "pinproof conda lock cuda-13.0",
        "pinproof conda check",
        "pinproof conda install cuda-13.0 --into toolkit",
    ],
)
def conda(asked: Asked) -> ExitCode:
    """Lock conda environments by the bytes of every package, check the locks, install one.

    No conda is needed, nor the GPU that is locked for: the specification in envs/ declares it.
    Exit code: 2 a specification cannot be solved or a lock is damaged, 4 a channel cannot be read
    or a package is not the one of its lock, 5 with check, a lock is stale. The old lock stays.
    """
    return _conda(
        asked,
        asked.action,
        asked.names,
        into=asked.into,
        offline=asked.offline,
        executable=asked.executable,
    )


@command.verb(
    "triage",
    option("logs", metavar="LOG", nargs="+", type=Path, help="what a build or a run printed"),
    option("--stage", metavar="STAGE", help="whose log it is; else every known failure counts"),
    option("--json", metavar="FILE", type=Path, help="write what was found as JSON"),
    examples=["pinproof triage .pinproof/logs/sm120-7a3c15/inspect.log", "pinproof triage *.log"],
)
def triage(asked: Asked) -> ExitCode:
    """Say which known failures logs hold, with cause and next step.

    Of an unknown failure the first lines that state an error are told. Exit code: 0 every log is
    explained by a known failure, 1 one is not.
    """
    from pinproof.judge import logs

    found = logs.read(asked.logs, Stage.parse(asked.stage) if asked.stage else None)
    print(*(each.text() for each in found), sep="\n\n")
    if asked.json is not None:
        write_json(asked.json, logs.document(found))
    return ExitCode.OK if all(each.is_known for each in found) else ExitCode.UNSAFE


@command.verb(
    "lock",
    option("--matrix", metavar="NAME", help="the matrix; else every one that has a lock"),
    option("--axis", metavar="AXIS", default="", help="look up this axis only"),
    option("--cell", dest="cells", metavar="ID", action="append", help="only this cell's pins"),
    option(
        "--env",
        dest="names",
        metavar="ENV",
        action="append",
        help="only this conda environment of envs/; may be repeated",
    ),
    switch("--check", "change nothing: is the lock stale, and what moved?"),
    option("--python", metavar="X.Y", help="for whom; default: those of the lock, else this one"),
    option("--platform", metavar="NAME", help="such as x86_64-manylinux_2_28; default: as above"),
    *(_FILE, _JSON),
    examples=[
        "pinproof lock --matrix blackwell-release",
        "pinproof lock --matrix blackwell-nightly --axis torch",
        "pinproof lock --cell cpu-ccda2b",
        "pinproof lock --matrix hopper --python 3.12 --platform x86_64-manylinux_2_35",
        "pinproof lock --check",
        "pinproof lock --env cuda-13.0",
    ],
)
def lock(asked: Asked) -> ExitCode:
    """Fix what a matrix leaves open: nightlies, commits, every wheel by sha256.

    The lock is written to lockfiles/, to be committed; a run takes it from there. Where anything
    fails the old lock stands. Exit code: 2 a lock or an option is wrong, 4 an index could not be
    asked, 5 with --check, the lock is stale.
    """
    if asked.names:
        return _conda(asked, "check" if asked.check else "lock", asked.names)
    from pinproof.locks import verbs

    order = verbs.Order(
        matrix_file=_given(asked.matrix_file, "matrix.toml"),
        matrix=asked.matrix or "",
        axis=asked.axis,
        cells=tuple(asked.cells or ()),
        python=asked.python or "",
        platform=asked.platform or "",
        check=asked.check,
    )
    document = verbs.lock(order, sys.stderr if asked.json else sys.stdout)
    if asked.json:
        _print_json(document)
    return ExitCode(document["exit_code"])


@command.verb("schema", examples=["pinproof schema > matrix.schema.json"])
def schema(_: Asked) -> ExitCode:
    """Print the JSON Schema of matrix.toml, for editors."""
    _print_json(matrixfile.json_schema())
    return ExitCode.OK


def _options(asked: Asked) -> Options:
    """Build the options from what a verb was given; what it does not take is not given."""
    given = vars(asked)
    until = given.get("until")
    wheelhouse = given.get("wheelhouse")
    return Options(
        matrix_file=_given(asked.matrix_file, "matrix.toml"),
        store=_given(asked.store, ".pinproof"),
        matrix=asked.matrix,
        cells=tuple(given.get("cells") or ()),
        select=given.get("select", ""),
        until=Stage.parse(until) if until is not None else None,
        backend=given.get("backend"),
        python=given.get("python"),
        jobs=given.get("jobs"),
        dry_run=given.get("dry_run", False),
        fresh=given.get("fresh", False),
        sanitize=given.get("sanitize", False),
        offline=given.get("offline", False),
        wheelhouse=wheelhouse.absolute() if wheelhouse else None,
    )


def _given(path: Path | None, name: str) -> Path:
    return path.absolute() if path is not None else options.root() / name


def _conda(asked: Asked, action: str, names: Sequence[str], **more: Any) -> ExitCode:
    from pinproof.locks.conda import verbs

    return verbs.conda(
        action,
        names,
        root=options.root(),
        store=_given(vars(asked).get("store"), ".pinproof"),
        at=now()[:19] + "Z",
        say=functools.partial(print, flush=True),
        **more,
    )


def _show(document: Any) -> None:
    width, colour = report.width_of(sys.stdout), report.wants_colour(sys.stdout)
    print(report.terminal(document, width=width, colour=colour), flush=True)


def _written(files: Sequence[Path]) -> None:
    print(*(f"written    {path}" for path in files), sep="\n")


def _print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
    print()
