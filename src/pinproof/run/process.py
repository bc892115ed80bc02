"""The one place that starts processes: timeout, process group, captured log, kind of end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

#: How long a process group gets between SIGTERM and SIGKILL, in seconds.
GRACE = 5.0

#: How often a running child's timeout and cancel are looked at, in seconds.
TICK = 0.1


class Cancel(Protocol):
    """Anything that says if a child has to end, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Say if it has to end now."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a child ended. ``returncode`` is negative for a signal, as in `subprocess`."""

    returncode: int
    seconds: float
    output: str
    timed_out: bool = False
    cancelled: bool = False

    @property
    def ok(self) -> bool:
        """True where the child ended by itself with status 0."""
        return self.returncode == 0 and not self.timed_out and not self.cancelled

    @property
    def signal_name(self) -> str | None:
        """The name of the signal that ended the child, or None."""
        return signal_name(self.returncode)


def inherited(**more: str) -> dict[str, str]:
    """Return the environment of this process with `more` in it."""
    return {**os.environ, **more}


def signal_name(returncode: int) -> str | None:
    """Return the name of the signal in a `subprocess` return code, or None for a status."""
    if returncode >= 0:
        return None
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    cancel: Cancel | None = None,
    keep: int = 1_000_000,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run `argv` in its own process group and wait for it.

    stdout and stderr are read as one stream: appended to `log`, handed to `on_line` line by
    line, and the last `keep` characters returned. When `timeout` seconds have passed, `cancel`
    is set, or on Ctrl-C, the group gets SIGTERM and after `GRACE` seconds SIGKILL. The child
    inherits the descriptors in `pass_fds`, such as that of a lock it has to hold.

    Raises OSError where the program cannot be started or the log cannot be written, and what
    `on_line` raised.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        sink: IO[str] | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink = stack.enter_context(log.open("a", encoding="utf-8", errors="replace"))
        child = stack.enter_context(
            subprocess.Popen(
                [os.fspath(part) for part in argv],
                env=None if env is None else dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                pass_fds=pass_fds,
            )
        )
        lines: list[str] = []
        broken: list[BaseException] = []
        reader = threading.Thread(target=_drain, args=(child, sink, on_line, lines, keep, broken))
        reader.start()
        try:
            timed_out, cancelled = _wait(child, reader, started, timeout, cancel)
        except KeyboardInterrupt:
            _terminate(child)  # it may have something to put back, and children of its own
            raise
        finally:
            # Grandchildren that kept the pipe open would block the reader for ever.
            _end_group(child)
            reader.join()
    if broken:
        raise broken[0]
    return Finished(
        returncode=child.returncode,
        seconds=time.monotonic() - started,
        output="".join(lines)[-keep:],
        timed_out=timed_out,
        cancelled=cancelled,
    )


def _drain(
    child: subprocess.Popen[str],
    sink: IO[str] | None,
    on_line: Callable[[str], None] | None,
    lines: list[str],
    keep: int,
    broken: list[BaseException],
) -> None:
    """Read the child's output to its end; keep what `on_line` raises, and stop calling it."""
    assert child.stdout is not None  # noqa: S101 - for the type checker; Popen got PIPE
    size = 0
    for line in child.stdout:
        lines.append(line)
        size += len(line)
        while size > 2 * keep and len(lines) > 1:
            size -= len(lines.pop(0))
        if sink is not None:
            # A full disk must not stop the reading: the child would block on its pipe.
            with contextlib.suppress(OSError):
                sink.write(line)
                sink.flush()
        if on_line is not None and not broken:
            try:
                on_line(line.rstrip("\n"))
            except BaseException as error:
                broken.append(error)


def _wait(
    child: subprocess.Popen[str],
    reader: threading.Thread,
    started: float,
    timeout: float | None,
    cancel: Cancel | None,
) -> tuple[bool, bool]:
    """Wait for the end, the timeout or the cancel; return (timed out, cancelled)."""
    while True:
        # The end of the output wakes us at once. A grandchild may hold it open, so the child is
        # looked at as well; a child may close its output and go on.
        reader.join(TICK)
        if not reader.is_alive():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(TICK)
        if child.poll() is not None:
            return False, False
        if timeout is not None and time.monotonic() - started > timeout:
            _terminate(child)
            return True, False
        if cancel is not None and cancel.is_set():
            _terminate(child)
            return False, True


def _terminate(child: subprocess.Popen[str]) -> None:
    """End the child and all its descendants, those that left its process group included."""
    import psutil  # 10 ms, and most runs end nothing

    try:
        tree = psutil.Process(child.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    for orphan in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            orphan.kill()


def _end_group(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
