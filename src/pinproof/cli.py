"""The `pinproof` command: the same verbs as the nox sessions, each also with ``--json``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

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
    _prepare_streams()
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
        code = _failed(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _failed(error)
    sys.exit(int(code))


class _Output(io.FileIO):
    """Standard output or error. A reader that goes away takes nothing from the exit code."""

    def write(self, data: Any) -> int:
        """Write; what nobody reads any more goes nowhere."""
        try:
            return super().write(data)
        except BrokenPipeError:
            _to_nowhere(self.fileno())
            return super().write(data)


def _prepare_streams() -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us, as by `>&-`
            _to_nowhere(number)
            setattr(sys, name, io.TextIOWrapper(_buffered(number), errors="replace"))
        elif stream is getattr(sys, f"__{name}__"):
            stream.flush()
            # A terminal without "·" is no reason to end.
            told = {"encoding": stream.encoding, "errors": "replace"}
            lines = stream.line_buffering
            setattr(sys, name, io.TextIOWrapper(_buffered(number), **told, line_buffering=lines))


def _buffered(number: int) -> io.BufferedWriter:
    return io.BufferedWriter(_Output(number, "w", closefd=False))


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _failed(error: OSError) -> ExitCode:
    """Say that the disk, or standard output, failed; that is no verdict on any cell."""
    what = error.filename or "cannot write the output"
    with contextlib.suppress(OSError):
        print(f"pinproof: {what}: {error.strerror}", file=sys.stderr)
    _to_nowhere(1)
    return ExitCode.INFRASTRUCTURE
