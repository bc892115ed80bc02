"""Fetches the wheels of locks into a wheelhouse; what is there already is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pinproof.errors import InfrastructureError
from pinproof.evidence.store import sha256
from pinproof.locks import download
from pinproof.locks.download import Target
from pinproof.locks.indexes import Places
from pinproof.locks.lock import Lock, Pin
from pinproof.locks.redact import redact
from pinproof.locks.wheelhouse import Entry, Wheel
from pinproof.run import process

#: What is told while it works: what is done now, how much is done, how much there is.
Tell = Callable[[str, int, int], None]

#: By file name: the pin, and the cells that it is for.
Wanted = Mapping[str, tuple[Pin, tuple[str, ...]]]


def silent(text: str, done: int, total: int) -> None:
    """Tell nothing."""


def wheels(
    out: Path,
    entries: Mapping[str, Entry],
    cells: Mapping[str, str],
    *,
    platform: str,
    source: tuple[str, ...] = (),
    places: Places | None = None,
    tell: Tell = silent,
) -> tuple[Wheel, ...]:
    """Make the directory `out` hold every file of the locks in `entries`, and list these files.

    `cells` says which entry is whose, by key; `platform` is the target's, a name of uv. `source`
    are pip's options that say where to look, where it is not to look in the places that it is
    configured with; `places` says where the other indexes of the locks are.

    Raises InfrastructureError where pip or the disk fails, and where a file is
    not the one of its lock.
    """
    wanted = _wanted(entries, cells)
    try:
        for entry in entries.values():
            if entry.resolution is not None:
                lock = entry.resolution.lock
                words = (*source, *Target(python=lock.python, platform=platform).words())
                indexes = tuple(map((places or Places()).url, () if source else lock.indexes))
                command = (*download.pip(source), *_words(out), *words)
                _fetch(out, lock, command, wanted, tell, download.pip_env(indexes))
        return _verified(out, wanted)
    except OSError as error:
        raise InfrastructureError(f"{out} cannot be written: {error.strerror}") from error


def _wanted(entries: Mapping[str, Entry], cells: Mapping[str, str]) -> Wanted:
    wanted: dict[str, tuple[Pin, tuple[str, ...]]] = {}
    for owner, key in cells.items():
        found = entries[key].resolution
        for pin in found.lock.pins if found else ():
            pinned, owners = wanted.get(pin.file, (pin, ()))
            if pinned != pin:
                raise InfrastructureError(
                    f"two indexes have different files called {pin.file}",
                    remedy="leave one of the indexes out of pip's configuration",
                )
            wanted[pin.file] = pin, (*owners, owner)
    return dict(sorted(wanted.items()))


def _fetch(
    out: Path,
    lock: Lock,
    command: tuple[str, ...],
    wanted: Wanted,
    tell: Tell,
    env: Mapping[str, str],
) -> None:
    """Fetch what `out` lacks of a lock; lock by lock, since pip takes no package twice."""
    missing = [pin for pin in lock.pins if not _is_there(out / pin.file, pin)]
    if not missing:
        return
    total = len(wanted)
    listing = out / "wanted.txt"
    listing.write_text("".join(f"{pin}\n" for pin in missing), encoding="utf-8")

    def line(text: str) -> None:
        if text.lstrip().startswith(("Collecting", "Downloading", "Saved")):
            tell(text.strip(), total - len(_absent(out, wanted)), total)

    try:
        tell(f"fetch {len(missing)} wheels", total - len(_absent(out, wanted)), total)
        done = process.run([*command, "--requirement", str(listing)], env=env, on_line=line)
    finally:
        listing.unlink()
    if not done.ok:
        raise _error(done.output, lock, [pin.file for pin in missing if (out / pin.file).is_file()])


def _words(out: Path) -> Iterator[str]:
    yield from ("download", "--no-deps", "--require-hashes", "--only-binary", ":all:")
    yield from ("--dest", str(out))
    yield from ("--progress-bar", "off", "--disable-pip-version-check")


def _error(output: str, lock: Lock, damaged: list[str]) -> InfrastructureError:
    lines = [line for line in output.strip().split("\n") if line.startswith("ERROR")]
    cause = redact(lines[0] if lines else output.strip()[-300:])
    remedy = "check the network and the disk, then run again: what is there is kept"
    if any(text in output for text in download.NO_FILE):
        remedy = "if an index had it and has it no more, take it from a wheelhouse: --wheelhouse"
    if backend := lock.torch_backend:
        remedy = f"add the index of {backend} builds of torch to pip's extra-index-url"
    if damaged:
        cause = f"what lies there under the name {damaged[0]} is another file; {cause}"
    return InfrastructureError("pip could not fetch the wheels", cause=cause, remedy=remedy)


def _absent(out: Path, files: Iterable[str]) -> list[str]:
    return [file for file in files if not (out / file).is_file()]


def _is_there(path: Path, pin: Pin) -> bool:
    return path.is_file() and sha256(path) == pin.sha256


def _verified(out: Path, wanted: Wanted) -> tuple[Wheel, ...]:
    found = []
    for file, (pin, owners) in wanted.items():
        path = out / file
        if not _is_there(path, pin):
            raise InfrastructureError(f"{file} was not fetched, or is not the file of its lock")
        found.append(Wheel(file=file, sha256=pin.sha256, size=path.stat().st_size, cells=owners))
    return tuple(found)
