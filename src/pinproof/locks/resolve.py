"""From a request to a lock, with uv as the solver."""

from __future__ import annotations

import functools
import re
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pinproof.errors import ResolveError
from pinproof.locks.installer import Installer
from pinproof.locks.lock import NIGHTLY, Lock, Pin, Request
from pinproof.locks.redact import redact
from pinproof.locks.resolution import Resolution
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
class _Answer:
    """What one call of uv came to."""

    pins: tuple[Pin, ...]
    download: int
    backend: str = ""


def resolve(
    request: Request,
    installer: Installer,
    *,
    held: Lock | None = None,
    timeout: float | None = None,
    cancel: threading.Event | None = None,
) -> Resolution:
    """Turn `request` into a lock of wheels: the lock `held`, where its files are to be had here.

    Source distributions are never taken: unlocked tools would build them at install time, and
    the result would be another file each time. The harness is resolved after the product with
    the product's versions as constraints, so that the pins do not depend on our checks.

    Raises ResolveError; ``conflict`` is True only where an index answered that nothing fits.
    """
    if installer.house is not None and (known := installer.house.recall(request)):
        return known
    installer = installer.reaching(request.indexes)
    if held is None:
        return _resolve(request, installer, (), timeout, cancel)
    try:
        found = _resolve(request, installer, held.pins, timeout, cancel)
    except ResolveError as error:
        if not error.conflict:
            raise
        told = [f"the lock's versions are not to be had here: {error.cause or error.what}"]
    else:
        _reject_others(held, found)
        told = _differences(held.pins, found.lock.pins)
        told += _differences(held.sources, found.sources)
        if not told:
            return found
    # Most likely another index than the one it was made from; a lock must not keep a user out.
    anew = _resolve(request, installer, (), timeout, cancel)
    _reject_others(held, anew)
    note = f"not the committed lock, but resolved anew: {'; '.join(told[:3])}"
    return replace(anew, notes=(note, *anew.notes))


def _resolve(
    request: Request,
    installer: Installer,
    held: Sequence[Pin],
    timeout: float | None,
    cancel: threading.Event | None,
) -> Resolution:
    """Resolve, with nothing but the versions in `held`, and their very files where they fit."""
    with tempfile.TemporaryDirectory(prefix="pinproof-") as scratch:
        solver = _Solver(request, installer, Path(scratch), held, timeout, cancel)
        product, notes = _product(solver)
        harness = _harness(solver, product)
        sources = tuple(solver.archive(text)[0] for text in request.sources)
    _reject_releases(request, product.pins)
    lock = Lock(
        python=request.python,
        platform=request.platform or "",
        torch_backend=product.backend,
        indexes=request.indexes,
        product=product.pins,
        harness=harness.pins,
    )
    return Resolution(
        lock=lock,
        notes=(*notes, *(f"{each} was withdrawn (yanked)" for each in sorted(solver.withdrawn))),
        log="\n".join([*solver.log, lock.text()]),
        download=product.download + harness.download,
        sources=sources,
    )


def _reject_others(held: Lock, found: Resolution) -> None:
    """Raise ResolveError where a file has the name of one of the lock `held`, and other bytes.

    A file of an index never changes. Only a build with a local version (2.13.0+cpu) of a lock that
    names no index may differ: no package index has such builds, and each machine finds its own.
    """
    known = {pin.file: pin for pin in (*found.lock.pins, *found.sources)}
    for pin in (*held.pins, *held.sources):
        here = known.get(pin.file, pin)
        if here.sha256 == pin.sha256 or ("+" in pin.version and not held.indexes):
            continue
        raise ResolveError(
            f"{pin.file} is not the file of the lock: its sha256 is {here.sha256[:12]}...,"
            f" the lock says {pin.sha256[:12]}...",
            conflict=False,
            cause="an index, a mirror or a directory of wheels has another file under that name",
            remedy="do not install it: look where it comes from, then renew the lock: nox -s lock",
        )


def _differences(held: Iterable[Pin], found: Iterable[Pin]) -> list[str]:
    """Say in what the files that were found are not those of the lock."""
    known = {pin.name: pin for pin in found}
    told = []
    for pin in held:
        here = known.pop(pin.name, None)
        if here is None or here.version != pin.version:
            told.append(f"{pin.name} {pin.version} became {here.version if here else 'needless'}")
        elif here.sha256 != pin.sha256:
            told.append(f"{pin.name} {pin.version} has other bytes here ({here.file})")
    return told + [f"{pin.name} {pin.version} is new" for pin in known.values()]


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
        return _Solver(request, installer, Path(scratch), (), 120, None).archive(text)


class _Solver:
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
    ) -> _Answer:
        """Ask uv; `more` are constraints beside the request's. Raises ResolveError."""
        request = self.request
        requirements = list(requirements)
        if not requirements:
            return _Answer(pins=(), download=0)
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


def _product(solver: _Solver) -> tuple[_Answer, list[str]]:
    """Resolve the product with the build of torch that the request wants, and say what is odd.

    The configured sources come first: a mirror or a directory of wheels may well hold the
    right build. Where they do not, PyTorch's own index of that build is asked.
    """
    request, wanted = solver.request, solver.request.torch
    first: _Answer | None = None
    problem: ResolveError | None = None
    try:
        first = _configured(solver, request.product)
    except ResolveError as error:
        # What is asked for from an index of its own is on no other.
        named = wanted in (None, "cuda") or bool(request.indexes)
        if not error.conflict or named or _has_build(solver):
            raise
        problem = error
    if first is not None and _is_build(wanted, first.pins):
        return first, []
    try:
        if not solver.installer.is_open:
            raise ResolveError(f"no {wanted} build of torch lies here", conflict=False)
        return solver.solve(request.product, backend=wanted or ""), []
    except ResolveError as error:
        if first is not None and wanted == "cpu":
            size = f"{first.download / 1e9:.1f} GB" if first.download else "several GB"
            note = (
                f"no CPU build of torch was found: the CUDA build downloads {size} ({error.what})"
            )
            return first, [note]
        # With the versions of a lock a conflict is a reason to resolve anew, and no verdict.
        if problem is not None and (error.conflict or solver.held):
            raise problem from error
        raise ResolveError(
            f"{problem.what if problem else f'the indexes hold no {wanted} build of torch'};"
            f" and PyTorch's own {wanted} index: {error.what}",
            conflict=error.conflict,
            cause=error.cause,
            remedy=f"add a source of {wanted} builds to pip's extra-index-url or find-links",
        ) from error


def _configured(solver: _Solver, requirements: Sequence[str]) -> _Answer:
    """Resolve from the configured sources, with the wanted build of torch where they have it."""
    wanted = solver.request.torch
    first = solver.solve(requirements)
    if wanted == "cpu" or _is_build(wanted, first.pins):
        return first
    # "2.13.0+cpu" sorts above "2.13.0", so a directory with a CPU build hides the other one.
    try:
        other = solver.solve(requirements, more=[f"torch!={_version(first.pins, 'torch')}"])
    except ResolveError:
        if wanted == "cuda":
            raise
        return first
    return other if wanted == "cuda" or _is_build(wanted, other.pins) else first


def _has_build(solver: _Solver) -> bool:
    """Say whether the sources hold the wanted build of torch: then a conflict is about the rest."""
    torch = [text for text in solver.request.product if Requirement(text).name == "torch"]
    try:
        return bool(torch) and _is_build(solver.request.torch, _configured(solver, torch).pins)
    except ResolveError:
        return False


def _harness(solver: _Solver, product: _Answer) -> _Answer:
    """Resolve what the checks need, beside the product's versions."""
    held = [f"{pin.name}=={pin.version}" for pin in product.pins]
    try:
        answer = solver.solve(solver.request.harness, more=held, backend=product.backend)
    except ResolveError as error:
        raise ResolveError(
            f"the product resolves, but not the harness beside it: {error.what}",
            # Our own needs say nothing about whether the combination is sound.
            conflict=False,
            cause=error.cause,
            remedy=error.remedy,
        ) from error
    names = {pin.name for pin in product.pins}
    pins = tuple(pin for pin in answer.pins if pin.name not in names)
    return _Answer(pins=pins, download=answer.download if pins else 0)


def _version(pins: Iterable[Pin], name: str) -> str:
    return next((pin.version for pin in pins if pin.name == name), "")


def _is_build(wanted: str | None, pins: Sequence[Pin]) -> bool:
    """Say whether `pins` hold the wanted build of torch, or no torch at all."""
    local = Version(_version(pins, "torch") or "0").local or ""
    if wanted is None or not _version(pins, "torch"):
        return True
    runtime = next((p.version for p in pins if p.name.startswith("nvidia-cuda-runtime")), "")
    bundled = "cu" + "".join(runtime.split(".")[:2]) if runtime else "cpu"
    found = local if re.fullmatch(r"cpu|cu\d+", local) else bundled
    return found != "cpu" if wanted == "cuda" else found == wanted


def _reject_releases(request: Request, pins: Sequence[Pin]) -> None:
    """Raise where a nightly resolved to a release: that is not what the cell is about."""
    for name in _nightlies(request):
        version = _version(pins, name)
        if version and not Version(version).is_devrelease:
            raise ResolveError(
                f"the indexes hold no nightly of {name}, only {version}",
                conflict=False,
                remedy="add the nightly index to pip's extra-index-url",
            )


def _early(request: Request) -> list[str]:
    """Say of which packages a pre-release is taken: nightlies, and the triton that one names."""
    return [f"{name}=allow" for name in dict.fromkeys((*_nightlies(request), *_daily(request)))]


def _daily(request: Request) -> tuple[str, ...]:
    """Say of which packages the listing is new every day: uv must not take it from its cache."""
    return ("torch", "triton", "vllm") if request.indexes else ()


def _nightlies(request: Request) -> list[str]:
    return [text.removesuffix(NIGHTLY) for text in request.product if text.endswith(NIGHTLY)]


def _read(path: Path, request: Request, backend: str, held: Mapping[str, Pin]) -> _Answer:
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
    return _Answer(pins=tuple(sorted(pins)), download=download, backend=backend)


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
