"""Versions of installed distributions, without importing them."""

from __future__ import annotations

from importlib import metadata


def version(name: str) -> str | None:
    """Return the installed version of the distribution `name`, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def failure(error: BaseException) -> str:
    """Return an exception as one line: its class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
