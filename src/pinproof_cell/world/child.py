"""Children of a stage: a Python of this environment, with a timeout and a kind of end.

A candidate can kill or hang its process, so each runs in a child. Children stay in the process
group of the stage: when the host ends the group, they go with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: Signals that come from outside: the machine that ran out of memory, or somebody who ended us.
OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"})


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended. ``output`` is the tail of what it wrote and was not shown."""

    returncode: int
    seconds: float
    output: str = ""
    timed_out: bool = False

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended the child by itself, such as ``"SIGFPE"``."""
        if self.timed_out or self.returncode >= 0:
            return None
        try:
            return signal.Signals(-self.returncode).name
        except ValueError:
            return f"signal {-self.returncode}"

    @property
    def reason(self) -> str | None:
        """One line for a person, or None where the child ended well."""
        if self.timed_out:
            return f"no end within {self.seconds:.0f} s"
        if self.signal is not None:
            return f"killed by {self.signal}"
        if self.returncode == 0:
            return None
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1][:500] if lines else f"exit status {self.returncode}"


def environment(target: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child for `target`.

    Triton reads TRITON_INTERPRET when it is imported, so it must be there before Python starts.
    One BLAS thread makes the interpreter's small products up to ten times faster.
    """
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH")) if part)
    interpreter = {"TRITON_INTERPRET": "1", "OPENBLAS_NUM_THREADS": "1"} if target == "cpu" else {}
    return {**os.environ, **interpreter, "PYTHONPATH": path, **(extra or {})}


def run(
    arguments: Sequence[str],
    *,
    target: str,
    timeout: float | None,
    show: bool = False,
    python: bool = True,
    extra: Mapping[str, str] | None = None,
) -> Ended:
    """Run this Python with `arguments` and wait for its end, at most `timeout` seconds.

    Without `python` the first of them is the program itself; `extra` are environment variables.
    Output goes to a file and not to a pipe: a grandchild that outlives a killed child would
    hold a pipe open and us with it. With `show` stdout goes where ours goes, at once, and
    stderr follows at the end.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as sink:
        process = subprocess.Popen(
            [*([sys.executable] if python else []), *arguments],
            env=environment(target, extra),
            stdin=subprocess.DEVNULL,
            stdout=None if show else sink,
            stderr=sink,
        )
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            process.kill()
            process.wait()
        output = _tail(sink)
    if show:
        sys.stderr.write(output)
    return Ended(
        returncode=process.returncode,
        seconds=time.monotonic() - started,
        output=output,
        timed_out=timed_out,
    )


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, whatever group it is in."""
    set_pdeathsig = 1
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(set_pdeathsig, signal.SIGKILL)


def _tail(sink: IO[bytes], size: int = 20_000) -> str:
    sink.seek(max(0, sink.seek(0, os.SEEK_END) - size))
    return sink.read().decode(errors="replace")
