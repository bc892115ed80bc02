"""uv as the solver: what is asked of ``uv pip compile``, and how its answer is read."""

from __future__ import annotations

import functools
import re
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from pinproof.errors import ResolveError
from pinproof.locks.installer import Installer
from pinproof.locks.lock import NIGHTLY, Pin, Request
from pinproof.locks.redact import redact
from pinproof.locks.wheeltags import best_wheel
from pinproof.run import process

_UNKNOWN = (
    "Failed to fetch",
    "network was disabled",
    "Request failed",
    "returned a 40",
    "returned 40",
)

#: How uv warns of a release that a requirement names exactly and that was withdrawn.
_YANKED = re.compile(r"^warning: `(\S+)` is yanked", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one call of uv came to."""

    pins: tuple[Pin, ...]
    download: int
    backend: str = ""


class Solver:
    """Calls ``uv pip compile`` for one request and keeps a log of what was asked."""

    def __init__(
        self,
        request: Request,
        installer: Installer,
        scratch: Path,
        held: Sequence[Pin],
        timeout: float | None,
        cancel: threading.Event | None,
    ) -> None:
        self.request = request
        self.held = {pin.name: pin for pin in held}
        self.installer = installer
        self.log: list[str] = []
        self.withdrawn: set[str] = set()
        self._scratch = scratch
        self._run: Callable[[Sequence[str]], process.Finished] = functools.partial(
            process.run, env=installer.env, cwd=scratch, timeout=timeout, cancel=cancel
        )

    def solve(
        self, requirements: Iterable[str], *, more: Iterable[str] = (), backend: str = ""
    ) -> Answer:
        """Ask uv; `more` are constraints beside the request's. Raises ResolveError."""
        request = self.request
        requirements = list(requirements)
        if not requirements:
            return Answer(pins=(), download=0)
        held = [f"{pin.name}=={pin.version}" for pin in self.held.values()]
        places = dict.fromkeys(str(Path(wheel.path).parent) for wheel in request.wheels)
        done = self._compile(
            *("--only-binary", ":all:"),
            *(word for place in places for word in ("--find-links", place)),
            *(("--python-platform", request.platform) if request.platform else ()),
            *(("--torch-backend", backend) if backend else ()),
            *(word for name in _early(request) for word in ("--prerelease-package", name)),
            *(word for name in _daily(request) for word in ("--refresh-package", name)),
            *(("--exclude-newer", request.exclude_newer) if request.exclude_newer else ()),
            *("--constraints", self._file("constraints", [*request.constraints, *more, *held])),
            *("--excludes", self._file("excludes", request.excludes)),
            self._file("requirements", requirements),
        )
        asked = f"{', '.join(requirements)}" + (f" ({backend} builds)" if backend else "")
        self.log.append(
            f"resolve {asked} for Python {request.python}, {request.platform or 'here'}"
        )
        if not done.ok:
            self.log.append(redact(done.output))
            raise _failure(done, asked, self.installer)
        self.withdrawn.update(_YANKED.findall(done.output))
        return _read(self._output, request, backend, self.held)

    def archive(self, text: str) -> tuple[Pin, str]:
        """Return what the source archive of a release is known by, and where it is.

        Raises ResolveError.
        """
        done = self._compile("--no-deps", self._file("requirements", [text]))
        self.log.append(f"the source archive of {text}")
        if not done.ok:
            self.log.append(redact(done.output))
            raise _failure(done, f"the source of {text}", self.installer)
        (package,) = tomllib.loads(self._output.read_text(encoding="utf-8"))["packages"]
        if "sdist" not in package:
            raise ResolveError(
                f"no index has a source archive of {text}",
                conflict=self.installer.is_open,
                remedy="build it from its repository: git+https://...@TAG",
            )
        found = package["sdist"]
        pin = Pin(
            name=canonicalize_name(package["name"]),
            version=package["version"],
            sha256=found["hashes"]["sha256"],
            file=_file_name(found),
        )
        place = found.get("url") or (self._scratch / found["path"]).resolve().as_uri()
        return pin, place

    @property
    def _output(self) -> Path:
        return self._scratch / "pylock.toml"

    def _compile(self, *words: str) -> process.Finished:
        self._output.unlink(missing_ok=True)
        argv = [
            *(self.installer.uv, "pip", "compile", "--no-progress"),
            *("--format", "pylock.toml", "--output-file", str(self._output)),
            *("--python", sys.executable, "--python-version", self.request.python),
            *self.installer.source_args,
            *words,
        ]
        try:
            return self._run(argv)
        except OSError as error:
            raise ResolveError(f"uv could not be started: {error}", conflict=False) from error

    def _file(self, name: str, lines: Iterable[str]) -> str:
        path = self._scratch / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)


def archive(text: str, installer: Installer, *, python: str) -> Pin:
    """Return version, sha256 and file of the source archive of a release, such as "x==1.2".

    `python` is the version that it is for. Raises ResolveError.
    """
    return archive_at(text, installer, python=python)[0]


def archive_at(text: str, installer: Installer, *, python: str) -> tuple[Pin, str]:
    """Return what `archive` does, and the address of the file. Nothing of it is run.

    Raises ResolveError.
    """
    with tempfile.TemporaryDirectory(prefix="pinproof-") as scratch:
        request = Request(product=(), python=python)
        return Solver(request, installer, Path(scratch), (), 120, None).archive(text)


def _early(request: Request) -> list[str]:
    """Say of which packages a pre-release is taken: nightlies, and the triton that one names."""
    return [f"{name}=allow" for name in dict.fromkeys((*nightlies(request), *_daily(request)))]


def _daily(request: Request) -> tuple[str, ...]:
    """Say of which packages the listing is new every day: uv must not take it from its cache."""
    return ("torch", "triton", "vllm") if request.indexes else ()


def nightlies(request: Request) -> list[str]:
    """Return the names of the packages of which a nightly is asked for, whichever it is."""
    return [text.removesuffix(NIGHTLY) for text in request.product if text.endswith(NIGHTLY)]


def _read(path: Path, request: Request, backend: str, held: Mapping[str, Pin]) -> Answer:
    """Read uv's pylock.toml: per package the held wheel or the one that fits best; no address."""
    pins, download = [], 0
    for package in tomllib.loads(path.read_text(encoding="utf-8")).get("packages", []):
        wheels = {_file_name(wheel): wheel for wheel in package.get("wheels", [])}
        own = held.get(canonicalize_name(package["name"]))
        kept = own is not None and own.sha256 in _hashes(wheels.get(own.file))
        known = [own.file] if own is not None and kept else wheels
        file = best_wheel(known, request.python, request.platform)
        if not _hashes(wheels[file]):
            raise ResolveError(f"the index gives no sha256 of {file}", conflict=False)
        download += wheels[file].get("size", 0)
        pins.append(
            Pin(
                name=canonicalize_name(package["name"]),
                version=package["version"],
                sha256=wheels[file]["hashes"]["sha256"],
                file=file,
            )
        )
    return Answer(pins=tuple(sorted(pins)), download=download, backend=backend)


def _hashes(wheel: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the sha256 of a wheel as a tuple of one, or of none."""
    sha256 = wheel.get("hashes", {}).get("sha256") if wheel else None
    return (str(sha256),) if sha256 else ()


def _file_name(wheel: Mapping[str, Any]) -> str:
    place = wheel.get("url") or wheel.get("path") or ""
    return str(wheel.get("name") or unquote(urlsplit(place).path).rpartition("/")[2])


def _failure(done: process.Finished, asked: str, installer: Installer) -> ResolveError:
    """Say why uv gave up: a fact about the combination, or the world around it."""
    said = [line for line in done.output.split("\n") if not line.startswith("warning: ")]
    text = redact("\n".join(said)).strip()
    if done.timed_out or done.cancelled:
        how = "took too long" if done.timed_out else "was stopped"
        return ResolveError(f"resolving {asked} {how}", conflict=False)
    unsolvable = "No solution found" in text
    conflict = unsolvable and installer.is_open and not any(mark in text for mark in _UNKNOWN)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    told = " ".join(line.removeprefix("cause: ") for line in lines if not line.startswith("error:"))
    remedy = ""
    if unsolvable and not conflict and not installer.is_open:
        remedy = "make the wheelhouse again, or run without --offline"
    elif "matching platform tag" in text or "has no usable wheels" in text:
        remedy = "if the target's glibc is newer, name it: --platform x86_64-manylinux_2_35"
    elif not conflict:
        remedy = "check the network and the index that pip is configured with, then run again"
    what = f"no versions fit {asked}" if unsolvable else f"{asked} could not be resolved"
    return ResolveError(what, conflict=conflict, cause=_trim(told or text), remedy=remedy)


def _trim(text: str, most: int = 600) -> str:
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " ..."
