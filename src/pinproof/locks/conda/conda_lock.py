"""Leaves the installing to ``conda-lock`` and a conda that the user named."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.locks.conda import lockfile
from pinproof.locks.redact import redact
from pinproof.run import process


def install(lock_path: Path, archives: Mapping[str, Path], prefix: Path, executable: str) -> None:
    """Let ``conda-lock install`` make `prefix` out of the `archives` (by address) of a lock.

    Raises ConfigurationError where a program is not there, InfrastructureError where it fails.
    """
    program, conda = (_found(name) for name in ("conda-lock", executable))
    lock = lockfile.read(lock_path)
    here = tuple(
        replace(each, url=archives[each.url].as_uri())
        for each in lock.packages
        if each.url in archives
    )
    with tempfile.TemporaryDirectory(prefix="pinproof-conda-") as scratch:
        local = Path(scratch, lock_path.name)
        # What conda reads are the very files that were compared, and no channel again.
        local.write_text(replace(lock, packages=here).text(), encoding="utf-8")
        kind = "--micromamba" if Path(conda).name == "micromamba" else "--no-micromamba"
        words = ["install", "--conda", conda, kind, "--prefix", str(prefix), str(local)]
        done = process.run([program, *words])
    if not done.ok:
        lines = redact(done.output).strip().splitlines() or ["it said nothing"]
        raise InfrastructureError(
            f"conda-lock ended with status {done.returncode}", cause=lines[-1][:200]
        )
    if not (prefix / "conda-meta").is_dir():
        raise InfrastructureError(f"{conda} said that it made {prefix}, and there is nothing")


def _found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfigurationError(
            f"{name} was asked for and is not on the PATH",
            remedy="install it, or leave --with out: rattler installs without any",
        )
    return path
