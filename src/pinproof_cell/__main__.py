"""The command line of the cell: one verb per stage, a request file in, a result file out."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pinproof_cell.document import check_writable, write
from pinproof_cell.request import BadRequestError, Request

#: Verb -> (module with ``run(document) -> document``, what it does). A module is imported only
#: for its own verb: a broken torch must not keep `inspect` from saying so.
STAGES = {
    "inspect": ("world.inspection", "record packages, device, imports and candidates"),
    "correctness": ("suite.correctness", "run the attention suite on every candidate"),
    "throughput": ("throughput.stage", "time every candidate against the Triton reference"),
    "sanitize": ("sanitizer.stage", "call every candidate under compute-sanitizer"),
}

#: Verb -> (module with ``arguments``, ``EXAMPLE`` and ``main(options)``, what it does).
TOOLS = {
    "check": ("suite.check", "judge an attention kernel of your own, or candidates by name"),
    "calibrate": ("calibration.verb", "measure the judge: right kernels that it must pass"),
    "fuzz": ("fuzz.verb", "search a kernel for failures that no fixed case has"),
    "mutants": ("killmatrix.verb", "measure the suite: broken kernels that it must reject"),
    "tune": ("throughput.tune", "time our Triton baseline beside torch's own kernels"),
}

WRITTEN, BAD_REQUEST, INTERRUPTED = 0, 2, 130

EXAMPLES = """\
examples:
  python -m pinproof_cell inspect --request request.json --json inspect.json
  python -m pinproof_cell throughput --request request.json --json throughput.json
  python -m pinproof_cell check --provider mykernel.py:attention --json check.json
  python -m pinproof_cell mutants --json mutants.json

a request:
  {"schema": 1, "cell": "cpu-3f9a1c", "target": "cpu", "axes": {"torch": "2.13.0"},
   "uses": ["serving"], "suite_dir": "tests/attention", "seed": 0}
correctness and sanitize also take "candidates": ["NAME", "FILE.py:NAME"] in it

exit status: 0 the result was written, whatever the candidates did; 2 the request is wrong;
130 Ctrl-C. check and mutants: 1 where the kernel, or the suite, does not pass
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; each verb sets ``act``."""
    top = argparse.ArgumentParser(
        prog="python -m pinproof_cell",
        description="Run one stage of a Pinproof cell, inside that cell's environment.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(metavar="STAGE", required=True)
    for verb, (module, does) in STAGES.items():
        sub = verbs.add_parser(verb, help=does, description=f"{does.capitalize()}.")
        sub.add_argument("--request", type=Path, required=True, help="the request, a JSON file")
        sub.add_argument("--json", type=Path, required=True, help="where the result is written")
        sub.set_defaults(act=stage, module=module)
    for verb, (module, does) in TOOLS.items():
        found = importlib.import_module(f"pinproof_cell.{module}")
        sub = verbs.add_parser(
            verb,
            help=does,
            description=f"{does.capitalize()}.",
            epilog=found.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        found.arguments(sub)
        sub.add_argument("--json", type=Path, required=True, help="where the result is written")
        sub.set_defaults(act=tool, module=module)
    return top


def stage(options: argparse.Namespace) -> int:
    """Run one stage from its request file to its result file. Raises BadRequestError."""
    request = Request.load(options.request)
    _check_place(options.json)
    run = importlib.import_module(f"pinproof_cell.{options.module}").run
    write(options.json, run(request.document()))
    return WRITTEN


def tool(options: argparse.Namespace) -> int:
    """Run a verb that needs no request. Raises BadRequestError."""
    several = options.module == "suite.check" and options.candidate
    _check_place(options.json, may_be_folder=bool(several))
    document, status = importlib.import_module(f"pinproof_cell.{options.module}").main(options)
    if document is not None:
        write(options.json, document)
    return int(status)


def _check_place(path: Path, *, may_be_folder: bool = False) -> None:
    """Raise BadRequestError where no result can be written to `path`: no work should end so."""
    if path.is_dir() and not may_be_folder:
        raise BadRequestError(f"--json {path} is a folder, and the result is one file")
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise BadRequestError(f"no folder {folder} to write the result to")
    try:
        check_writable(folder)
    except OSError as error:
        raise BadRequestError(f"cannot write to {folder}: {error.strerror}") from None


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        options = parser().parse_args(words)
        return int(options.act(options))
    except BadRequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_REQUEST
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
