"""Children of a stage: a Python of this environment, with a timeout and a kind of end.

A candidate can kill or hang its process, so each runs in a child. Children stay in the process
group of the stage: when the host ends the group, they go with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: Signals that come from outside: the machine that ran out of memory, or somebody who ended us.
OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"})


#: Set where the user ends us: nobody waits for a child any more, and none is started.
interrupted = threading.Event()


@contextlib.contextmanager
def threads(most: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads that wait for children; Ctrl-C ends those of all of them."""
    with ThreadPoolExecutor(most) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            interrupted.set()
            raise


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


#: The folder that our packages are imported from.
OURS = Path(__file__).resolve().parents[2]


def environment(target: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child for `target`.

    Triton reads TRITON_INTERPRET when it is imported, so it must be there before Python starts.
    One BLAS thread makes the interpreter's small products up to ten times faster.
    """
    path = os.pathsep.join(part for part in (str(OURS), os.environ.get("PYTHONPATH")) if part)
    interpreter = {"TRITON_INTERPRET": "1", "OPENBLAS_NUM_THREADS": "1"} if target == "cpu" else {}
    return {**os.environ, **interpreter, "PYTHONPATH": path, **(extra or {})}


def callers_path() -> str:
    """Return PYTHONPATH without our own folder: where else the caller has packages."""
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(part for part in parts if part and Path(part).resolve() != OURS)


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
    stderr follows at the end. Raises KeyboardInterrupt where the user ends us, in any thread.
    """
    if interrupted.is_set():
        raise KeyboardInterrupt
    started = time.monotonic()
    with tempfile.TemporaryFile() as sink:
        process = subprocess.Popen(
            [*([sys.executable] if python else []), *arguments],
            env=environment(target, extra),
            stdin=subprocess.DEVNULL,
            stdout=None if show else sink,
            stderr=sink,
        )
        try:
            timed_out = not _wait(process, timeout)
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


def _wait(process: subprocess.Popen[bytes], timeout: float | None) -> bool:
    """Return whether the child ends within `timeout` s. Raises KeyboardInterrupt as `run` does."""
    until = math.inf if timeout is None else time.monotonic() + timeout
    while not interrupted.is_set():
        left = until - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, min(left, 0.5)))
            break
        if left <= 0:
            return False
    if interrupted.is_set():
        raise KeyboardInterrupt
    return True


class Conversation:
    """A child that answers each line with one line, until it dies of one.

    It is told ``--replies FD`` beside `arguments`: its answers go there, since a candidate may
    print what it likes. It reads the lines from stdin.
    """

    def __init__(self, arguments: Sequence[str], *, target: str) -> None:
        self._sink = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the child)
        self._replies, theirs = os.pipe()
        self._pending = b""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *arguments, "--replies", str(theirs)],
            env=environment(target),
            stdin=subprocess.PIPE,
            stdout=self._sink,
            stderr=self._sink,
            pass_fds=(theirs,),
        )
        os.close(theirs)

    def say(self, line: str) -> None:
        """Send one line; a child that is gone does not mind."""
        assert self._process.stdin is not None  # noqa: S101  (it is a pipe)
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, timeout: float) -> str | Ended:
        """Return the next answer, or how the child ended instead; ends it after `timeout` s."""
        limit = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = limit - time.monotonic()
            if left <= 0 or not select.select([self._replies], [], [], left)[0]:
                return self.end(timed_out=True)
            some = os.read(self._replies, 1 << 16)
            if not some:
                # It closed its end: it is dying, and the kernel tells how as soon as it is dead.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(10)
                return self.end()
            self._pending += some
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def end(self, *, timed_out: bool = False) -> Ended:
        """End the child, if it has not ended by itself."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if not self._sink.closed:
            os.close(self._replies)
            self._output = _tail(self._sink)
            self._sink.close()
        return Ended(
            returncode=self._process.returncode,
            seconds=time.monotonic() - self._started,
            output=self._output,
            timed_out=timed_out,
        )


def end_strayed(pid: int, word: str) -> bool:
    """Kill process `pid` if its command line holds `word`, since another may have its number now.

    Says if there was one. For a grandchild that does not notice the end of its parent.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    if word.encode() not in words:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies, whatever group it is in."""
    set_pdeathsig = 1
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(set_pdeathsig, signal.SIGKILL)


def _tail(sink: IO[bytes], size: int = 20_000) -> str:
    sink.seek(max(0, sink.seek(0, os.SEEK_END) - size))
    return sink.read().decode(errors="replace")
