"""Runs a command to which directories are read-only: ``read_only.py [DIR|+DIR]... -- COMMAND``.

A directory with a ``+`` stays writable though it lies in one that does not. The command gets a
view of the file system of its own (a mount namespace), in which the others are mounted once more
and read-only; that holds for root too, which mode bits do not stop. Whoever may not make such a
view runs the command without it, and says so: then only what is checked afterwards protects them.

A program of its own, which becomes the command: started with ``python -I -S``, standard library
only. See mount_namespaces(7), user_namespaces(7) and mount_setattr(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_NEWNS, _NEWUSER = 0x0002_0000, 0x1000_0000
_ALL = 0x4000
_BIND_ALL, _PRIVATE_ALL = 0x1000 | _ALL, 0x4_0000 | _ALL
_MOUNT_SETATTR, _HERE, _RDONLY, _RECURSIVE = 442, -100, 1, 0x8000

#: Where a driver is that calls a setuid program to make its devices: none runs in a user namespace.
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def command(words: Sequence[str], closed: Iterable[Path], still_open: Iterable[Path]) -> list[str]:
    """Return the command that runs `words` with `closed` read-only, but for `still_open`."""
    names = [*map(str, closed), *(f"+{each}" for each in still_open)]
    return [sys.executable, "-I", "-S", __file__, *names, "--", *words]


def main(words: Sequence[str]) -> None:
    """Make the view, and become the command."""
    end = words.index("--")
    names = [name for name in words[:end] if Path(name.removeprefix("+")).is_dir()]
    try:
        if names:
            _try(names)
            _view(names)
    except OSError as error:
        # Not in the words of the system: what reads the log would take them for the reason of
        # whatever fails after it.
        code = errno.errorcode.get(error.errno or 0, "unknown")
        os.write(2, f"pinproof: what cells share stays writable to this one: {code}\n".encode())
    os.execvp(words[end + 1], list(words[end + 1 :]))  # noqa: S606 - it becomes the command


def _try(names: Sequence[str]) -> None:
    """Make the view in a child: half a view would be worse than none. Raises OSError."""
    child = os.fork()
    if child == 0:
        try:
            _view(names)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    if number := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(abs(number), os.strerror(abs(number)))


def _view(names: Sequence[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _checked(libc.unshare(_NEWNS))
    except PermissionError:
        if any(driver.exists() for driver in _DRIVERS):
            raise
        _unshare_user(libc)
    _checked(libc.mount(None, b"/", None, ctypes.c_ulong(_PRIVATE_ALL), None))
    # With what is mounted below it: a directory would be empty where a file system lies on it.
    for name in sorted(names, key=lambda each: each.startswith("+")):
        path = os.fsencode(name.removeprefix("+"))
        _checked(libc.mount(path, path, None, ctypes.c_ulong(_BIND_ALL), None))
        # What is mounted below an open one may have been read-only before us, and stays so.
        on, off, how = (0, _RDONLY, 0) if name.startswith("+") else (_RDONLY, 0, _RECURSIVE)
        attributes = (ctypes.c_uint64 * 4)(on, off, 0, 0)
        size = ctypes.sizeof(attributes)
        _checked(libc.syscall(_MOUNT_SETATTR, _HERE, path, how, attributes, size))


def _unshare_user(libc: ctypes.CDLL) -> None:
    """Make a namespace in which a plain user may mount, and is who it was."""
    user, group = os.getuid(), os.getgid()
    _checked(libc.unshare(_NEWUSER | _NEWNS))
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        Path("/proc/self", file).write_text(text, encoding="ascii")


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv[1:])
