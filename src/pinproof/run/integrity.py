"""Whether the files of an environment are still the files of its wheels.

uv makes environments of hard links into its cache: five torch environments take the room of
one, and an edit in one of them would edit all, the cache included. So the files are made
read-only, and since that does not stop everybody, every file is compared with its wheel's RECORD
after the install, and before and after a stage that is believed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: From this size on, in bytes, a file is hashed in a thread.
LARGE = 1 << 20

#: A file as its package names it: the package, the path, the sha256 in base64 without padding.
Row = tuple[str, str, str]

#: What a file is known by between two checks: size, mtime in ns, inode, device.
Look = list[int]

#: How many files are remembered by inode; a store that outgrew it begins anew.
MOST = 400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A file that is not what its wheel holds: which package, which file, what of it."""

    package: str
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.package}: {self.file} {self.what}"


def check(
    site_packages: Path, stamp: Path | None = None, inodes: Path | None = None
) -> list[Change]:
    """Compare every installed file with the sha256 in its wheel's RECORD.

    With `stamp` (a file that this function writes where all is well) only files whose size,
    mtime or inode moved since the last good check are read again: 13,000 files of torch and
    triton take 0.2 s instead of 6. With `inodes`, another such file, neither are those that some
    environment was found to share with this one: the next cell of a torch is not read again.
    Extra files, such as ``.pyc``, are nobody's and not looked at.

    Raises OSError where the environment or the stamp cannot be read or written.
    """
    recorded = [
        row
        for record in sorted(site_packages.glob("*.dist-info/RECORD"))
        if not is_of_conda(record.parent)
        for row in _rows(record)
    ]
    return compare(site_packages, recorded, stamp, inodes)


def is_of_conda(dist_info: Path) -> bool:
    """Say if conda packaged the distribution: then conda's own list of files speaks of it.

    Conda changes scripts and paths as it installs, and leaves the RECORD as it was.
    """
    try:
        return (dist_info / "INSTALLER").read_text(encoding="utf-8").strip() == "conda"
    except (OSError, UnicodeError):
        return False


def compare(
    base: Path, recorded: Sequence[Row], stamp: Path | None = None, inodes: Path | None = None
) -> list[Change]:
    """Compare the `recorded` files, which lie below `base`, with their digests; see `check`."""
    known = _load(stamp)
    looks = {file: _look(f"{base}/{file}") for _, file, _ in recorded}
    moved = [row for row in recorded if looks[row[1]] is None or known.get(row[1]) != looks[row[1]]]
    read_before = _load(inodes) if moved else {}
    moved = [row for row in moved if not _is_known(looks[row[1]], row[2], read_before)]
    # hashlib lets go of the interpreter lock, so threads read on every core; for small files the
    # handing over costs more than the hashing.
    large = [row for row in moved if (looks[row[1]] or [0])[0] >= LARGE]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        later = pool.map(lambda row: _compare(base, *row), large)
        own = set(large)
        small = [_compare(base, *row) for row in moved if row not in own]
        changes = [change for change in (*small, *later) if change is not None]
    changes += _lost(known, looks.keys())
    if stamp is not None and not changes:
        _save(stamp, looks)
    if inodes is not None and moved and not changes:
        read = dict(_known(looks[file], digest) for _, file, digest in moved)
        _save(inodes, {**read_before, **read} if len(read_before) < MOST else read)
    return changes


def _known(look: Look | None, digest: str) -> tuple[str, list[Any]]:
    """Return by what a file is remembered, whatever its name: its inode; and what must hold."""
    size, mtime, inode, device = look or (0, 0, 0, 0)
    return f"{device}:{inode}", [size, mtime, digest]


def _is_known(look: Look | None, digest: str, read_before: Mapping[str, Any]) -> bool:
    inode, expected = _known(look, digest)
    return look is not None and read_before.get(inode) == expected


def _save(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)


def seal(home: Path) -> None:
    """Take the right to write from every file that other environments may have a link to.

    An edit in place then fails, in this environment and all others, and in uv's cache; one that
    writes a new file and renames it touches none but its own. Root is not stopped by it.
    """
    for directory, _, names in os.walk(home):
        for name in names:
            status = os.lstat(f"{directory}/{name}")
            if status.st_nlink > 1 and status.st_mode & 0o222 and stat.S_ISREG(status.st_mode):
                Path(directory, name).chmod(stat.S_IMODE(status.st_mode) & ~0o222)


def _lost(known: Mapping[str, Look | None], recorded: Collection[str]) -> list[Change]:
    """Return the files of the last good check that no RECORD names any more."""
    return [
        Change(package=file.partition("/")[0], file=file, what="is gone, with its RECORD")
        for file in known
        if file not in recorded
    ]


def _rows(record: Path) -> list[Row]:
    """Return (package, file, digest) for every row with a sha256; RECORD itself has none."""
    package = record.parent.name.removesuffix(".dist-info").partition("-")[0]
    with record.open(encoding="utf-8", newline="") as lines:
        return [
            (package, row[0], row[1].removeprefix("sha256="))
            for row in csv.reader(lines)
            if len(row) >= 2 and row[1].startswith("sha256=")
        ]


def _look(path: str) -> Look | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - 17,000 of them: a Path of each takes as long again
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev]


def _compare(base: Path, package: str, file: str, digest: str) -> Change | None:
    try:
        with (base / file).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").digest()
    except FileNotFoundError:
        return Change(package=package, file=file, what="is gone")
    if in_record(found) != digest:
        return Change(package=package, file=file, what="was edited after its install")
    return None


def in_record(digest: bytes) -> str:
    """Return a digest as a RECORD writes it."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _load(stamp: Path | None) -> dict[str, Any]:
    if stamp is None or not stamp.is_file():
        return {}
    try:
        known = json.loads(stamp.read_text(encoding="utf-8"))
    except ValueError:
        return {}  # half written by something else: everything is read again
    return known if isinstance(known, dict) else {}


def loaded(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield path and sha256 of every extension that a stage says it had loaded."""
    yield from document.get("extensions") or ()
    for candidate in document.get("candidates") or ():
        yield from candidate.get("extensions") or ()


def stranger(
    extensions: Iterable[Mapping[str, Any]], sites: Sequence[Path], built: Mapping[str, str]
) -> str:
    """Say which loaded extension is not the one that was built for the cell, or "".

    `built` has the sha256 of each library of the wheels that were built, by its file in the wheel;
    `sites` are the directories that these were installed in. A number of one copy says nothing
    of another.
    """
    names = {file.rpartition("/")[2]: file for file in built}
    for each in extensions:
        path = Path(str(each["path"]))
        file = names.get(path.name)
        if file is None or not path.is_absolute():
            continue
        if path.resolve() not in {(site / file).resolve() for site in sites}:
            return f"{path} was loaded in the place of the {file} that was built for the cell"
        if each["sha256"] != built[file]:
            return f"the {file} that was loaded is not the one that was built and audited"
    return ""
