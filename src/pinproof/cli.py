"""The `pinproof` command: the same verbs as the nox sessions, each also with ``--json``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pinproof.command import Command
from pinproof.errors import ExitCode, PinproofError
from pinproof.verbs import kernels, locks, proof, safe, wheels

command = Command(
    "pinproof",
    "Proves which torch, CUDA, flash-attn and vLLM combination is safe to pin on a GPU.",
    [proof.verbs, safe.verbs, kernels.verbs, wheels.verbs, locks.verbs],
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
