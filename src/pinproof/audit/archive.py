"""Unpacks wheels and source archives, and refuses those that would write outside of their place."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from pinproof.errors import ConfigurationError, InfrastructureError

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError)


def everything(_: str) -> bool:
    """Want every member."""
    return True


def unpack(archive: Path, into: Path, wanted: Callable[[str], bool] = everything) -> Path:
    """Unpack the `wanted` members of a zip or tar file into the new directory `into`; return it.

    Every member is looked at before anything is written. Raises ConfigurationError where the
    archive is cut off or has members that lead outside, InfrastructureError where the disk has no
    room or refuses.
    """
    try:
        into.mkdir(parents=True)
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as whole:
                members = whole.infolist()
                _check(archive, (each.filename for each in members))
                chosen = [each for each in members if wanted(each.filename)]
                _check_room(archive, into, sum(each.file_size for each in chosen))
                whole.extractall(into, chosen)  # noqa: S202 - every member was looked at
        else:
            with tarfile.open(archive) as tar:
                found = tar.getmembers()
                _check(archive, (each.name for each in found))
                _check(archive, (_target(each) for each in found if each.issym() or each.islnk()))
                picked = [each for each in found if wanted(each.name)]
                _check_room(archive, into, sum(each.size for each in picked))
                tar.extractall(into, picked, filter="data")
    except _BROKEN as error:
        raise ConfigurationError(
            f"{archive.name} is no whole archive: {error}", remedy="fetch it again"
        ) from None
    except OSError as error:
        raise InfrastructureError(f"{archive.name} cannot be unpacked: {error}") from None
    return into


def _target(link: tarfile.TarInfo) -> str:
    """Return where a link leads, from the root of the archive: of a hard link that is its text."""
    if link.islnk() or link.linkname.startswith("/"):
        return link.linkname
    parts: list[str] = []
    for part in (*PurePosixPath(link.name).parent.parts, *PurePosixPath(link.linkname).parts):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _check(archive: Path, members: Iterable[str]) -> None:
    """Raise ConfigurationError where a member would land outside of its place."""
    for member in members:
        parts = PurePosixPath(member.replace("\\", "/")).parts
        if member.startswith(("/", "\\")) or ".." in parts or (parts and ":" in parts[0]):
            raise ConfigurationError(
                f"{archive.name} has a member {member!r}, which points outside of the archive",
                cause="it was made to overwrite files of whoever unpacks it",
                remedy="do not use it; get the file from where its project publishes it",
            )


def _check_room(archive: Path, into: Path, need: int) -> None:
    room = shutil.disk_usage(into).free
    if need > room:
        raise InfrastructureError(
            f"{archive.name} unpacks to {need / 1e9:.1f} GB, and {room / 1e9:.1f} are free",
            remedy="free space, or set TMPDIR to a larger disk",
        )
