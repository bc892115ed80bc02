"""From a request to a lock: the product first, then the harness beside it."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from pinproof.errors import ResolveError
from pinproof.locks.installer import Installer
from pinproof.locks.lock import Lock, Pin, Request
from pinproof.locks.resolution import Resolution
from pinproof.locks.solver import Answer, Solver, nightlies


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
        solver = Solver(request, installer, Path(scratch), held, timeout, cancel)
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


def _product(solver: Solver) -> tuple[Answer, list[str]]:
    """Resolve the product with the build of torch that the request wants, and say what is odd.

    The configured sources come first: a mirror or a directory of wheels may well hold the
    right build. Where they do not, PyTorch's own index of that build is asked.
    """
    request, wanted = solver.request, solver.request.torch
    first: Answer | None = None
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


def _configured(solver: Solver, requirements: Sequence[str]) -> Answer:
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


def _has_build(solver: Solver) -> bool:
    """Say whether the sources hold the wanted build of torch: then a conflict is about the rest."""
    torch = [text for text in solver.request.product if Requirement(text).name == "torch"]
    try:
        return bool(torch) and _is_build(solver.request.torch, _configured(solver, torch).pins)
    except ResolveError:
        return False


def _harness(solver: Solver, product: Answer) -> Answer:
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
    return Answer(pins=pins, download=answer.download if pins else 0)


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
    for name in nightlies(request):
        version = _version(pins, name)
        if version and not Version(version).is_devrelease:
            raise ResolveError(
                f"the indexes hold no nightly of {name}, only {version}",
                conflict=False,
                remedy="add the nightly index to pip's extra-index-url",
            )
