"""Conda packages on this disk: fetched once, and used only where their sha256 is the lock's.

Rattler compares sha256 where it downloads, and not where an address is a ``file://``: so every
archive is hashed here, whatever it came from, and installed from where it was hashed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pinproof.errors import InfrastructureError
from pinproof.evidence.store import sha256
from pinproof.locks.conda.lockfile import Package
from pinproof.locks.redact import redact

#: Downloads side by side.
AT_ONCE = 8

#: What downloads an address into a file; raises any exception where it cannot.
Download = Callable[[str, Path], Awaitable[None]]


def place(package: Package, cache: Path) -> Path:
    """Return where the archive of a package lies in a cache, be it there or not.

    As in a channel, in a directory called linux-64 or noarch: some programs look for that.
    """
    return cache / "archives" / package.sha256[:16] / package.subdir / package.file


async def gather(
    packages: Iterable[Package],
    cache: Path,
    download: Download | None,
    source: Path | None = None,
) -> dict[str, Path]:
    """Return by address the verified archive of each package, fetched where it is missing.

    `source` is another cache, such as an archive, that is looked into first. Without `download`
    nothing is read that is not on this disk. Raises InfrastructureError for an
    archive that cannot be had, or whose bytes are not those of the lock.
    """
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(package: Package) -> tuple[str, Path]:
        async with turn:
            return package.url, await _verified(package, cache, download, source)

    # What can be had is kept, whatever befell another: the next try asks for that one alone.
    found = await asyncio.gather(*map(one, packages), return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return dict(each for each in found if not isinstance(each, BaseException))


async def _verified(
    package: Package, cache: Path, download: Download | None, source: Path | None
) -> Path:
    archive = place(package, cache)
    if archive.is_file() and await asyncio.to_thread(sha256, archive) == package.sha256:
        return archive
    partial = archive.with_name(f"{archive.name}.{os.getpid()}")
    try:
        await asyncio.to_thread(archive.parent.mkdir, parents=True, exist_ok=True)
        kept = place(package, source) if source else None
        if kept is not None and kept.is_file():
            package = replace(package, url=kept.as_uri())
        await _fetch(package, partial, download)
        found = await asyncio.to_thread(sha256, partial)
        if found != package.sha256:
            raise InfrastructureError(
                f"{package.file} is not the package of its lock: its sha256 is {found[:16]}…,"
                f" the lock says {package.sha256[:16]}…",
                cause=f"it was replaced or damaged in {_shown(package.url)}, or on the way",
                remedy="find out why before you trust that channel; then make the lock again",
            )
        partial.replace(archive)
    except OSError as error:
        raise InfrastructureError(
            f"{package.file} cannot be had from {_shown(package.url)}: {error.strerror}",
            remedy="make the lock again where the channel can be read",
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return archive


async def _fetch(package: Package, into: Path, download: Download | None) -> None:
    address = urlsplit(package.url)
    if address.scheme == "file":
        await asyncio.to_thread(shutil.copyfile, unquote(address.path), into)
        return
    if download is None:
        raise InfrastructureError(
            f"{package.file} is not on this machine, and nothing may be downloaded",
            remedy="install the environment once with a network, or leave --offline out",
        )
    try:
        await download(package.url, into)
    except Exception as error:  # rattler has a class for each layer that can fail
        raise InfrastructureError(
            f"{package.file} cannot be downloaded from {_shown(package.url)}",
            cause=redact(str(error)).strip().rpartition("\n")[2][:200],
            remedy="check the network, and that the channel still has it",
        ) from None


def _shown(url: str) -> str:
    """Return the channel and subdirectory of an address."""
    return redact(url.rpartition("/")[0])
