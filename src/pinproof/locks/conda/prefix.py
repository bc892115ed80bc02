"""The directory of an environment: only what we made is replaced, and it is kept until then."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pinproof.errors import ConfigurationError, InfrastructureError

#: In an environment that is whole; who sees it may replace the directory.
MARK = "pinproof-conda.txt"
_WORDS = "Made from a conda lock by Pinproof. The next install replaces this directory whole.\n"


@contextlib.contextmanager
def replacing(prefix: Path) -> Iterator[None]:
    """Let the body make `prefix`; where that fails, what it made goes and what was there is back.

    Conda writes the prefix into files, so that an environment cannot be made elsewhere and moved:
    the older one waits beside, in a hidden directory. Raises as `refuse_foreign`, and
    InfrastructureError where the disk refuses.
    """
    aside = _aside(prefix)
    try:
        _recover(prefix, aside)
        refuse_foreign(prefix)
        aside.mkdir(parents=True)
        if prefix.exists():
            prefix.rename(aside / "before")
    except OSError as error:
        raise InfrastructureError(f"{prefix} cannot be replaced: {error.strerror}") from None
    try:
        yield
        (prefix / MARK).write_text(_WORDS, encoding="utf-8")
    except BaseException:
        shutil.rmtree(prefix, ignore_errors=True)
        _recover(prefix, aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def refuse_foreign(prefix: Path) -> None:
    """Raise ConfigurationError where `prefix` holds anything and is no environment of ours."""
    try:
        free = not prefix.exists() or (prefix / MARK).is_file() or not any(prefix.iterdir())
    except OSError as error:
        raise ConfigurationError(f"{prefix} is no directory to use: {error.strerror}") from None
    if free:
        return
    if _aside(prefix).is_dir():
        raise ConfigurationError(
            f"{prefix} was left half made: an install into it was killed",
            remedy=f"remove it and try again; what was there before is in {_aside(prefix)}",
        )
    raise ConfigurationError(
        f"{prefix} is not empty, and no conda environment that Pinproof made",
        cause="an install replaces the whole directory",
        remedy="name one that is not there yet, or remove it",
    )


def _aside(prefix: Path) -> Path:
    return prefix.with_name(f".{prefix.name}.pinproof")


def _recover(prefix: Path, aside: Path) -> None:
    """Bring back the environment that was set aside, where nothing is in its place."""
    if (aside / "before").is_dir() and not prefix.exists():
        (aside / "before").rename(prefix)
    if (prefix / MARK).is_file() or not prefix.exists():
        shutil.rmtree(aside, ignore_errors=True)
