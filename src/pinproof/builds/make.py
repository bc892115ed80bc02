"""Makes a wheel: takes it from the cache, or builds it, looks into it, and publishes it.

A build goes on in the tree that an earlier try left, so that what its ninja had finished is not
compiled again. Two processes that want the same wheel build it once: the second waits, and finds
it in the cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pinproof.audit import arch as archs
from pinproof.audit import library, subject
from pinproof.audit.arch import Status
from pinproof.audit.subject import Subject
from pinproof.builds import jobs as parallel
from pinproof.builds import ninja_first, patching, source, toolkit, units
from pinproof.builds.build import Build
from pinproof.builds.cache import Cache, Record
from pinproof.builds.jobs import Jobs
from pinproof.builds.source import Say
from pinproof.builds.toolkit import Toolkit
from pinproof.clock import now
from pinproof.errors import ConfigurationError, ExitCode, InfrastructureError, PinproofError
from pinproof.evidence.store import read_json, sha256, write_json
from pinproof.judge import triage
from pinproof.locks.installer import Installer
from pinproof.plan.stage import Stage
from pinproof.run import process

#: Room that a build may fill, in bytes: objects of a full flash-attn are below 1 GB.
LEAST_ROOM = 3 * 10**9

#: Compilers touch 4 GB and more each. In large pages, where Linux gives them to who asks, one unit
#: of flash-attn took 60 s of a processor in place of 67 (glibc 2.35 and later).
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class BuildError(PinproofError):
    """The sources do not build here; what the compiler said stands in the output."""

    exit_code = ExitCode.UNSAFE


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a build happens: the interpreter with torch, the toolkit, variables, most jobs.

    ``env`` is the whole environment but for what the build sets: code that is built sees no more of
    the caller's, above all no password of an index. ``installer`` says where a release is; ``jobs``
    None takes what the machine allows. ``lock`` is the descriptor of the build's lock.
    """

    python: Path
    toolkit: Toolkit
    env: Mapping[str, str]
    installer: Installer
    jobs: int | None = None
    lock: int | None = None


def make(build: Build, cache: Cache, site: Site, say: Say) -> Record:
    """Return the record of a wheel of `build`, building it if the cache has none.

    `say` is told what happens, line by line. Raises BuildError where the sources do not build,
    ConfigurationError where they are not what they should be, InfrastructureError and ResolveError
    where the machine, the disk or the network fails.
    """
    told = f"{build.source}: another process builds it; this one waits"
    with cache.exclusive(build.key, waiting=lambda: say(told)) as lock:
        known = cache.find(build.key)
        if known is not None:
            say(f"{build.source}: in the cache since {known.built[:10]}")
            return known
        return _build(build, cache, replace(site, lock=lock), say)


def _build(build: Build, cache: Cache, site: Site, say: Say) -> Record:
    work = cache.work_dir(build.key)
    _check(build, cache.root, site)
    began = time.monotonic()
    tree = _tree(build, work, site, say)
    wheel, jobs, log = _wheel(build, tree, work, site, say)
    libraries = _libraries(wheel, work, build.archs)
    check_native(build, [Status(each["status"]) for each in libraries])
    record = Record(
        key=build.key,
        wheel=wheel.name,
        sha256=sha256(wheel),
        size=wheel.stat().st_size,
        inputs=build.inputs(),
        tools=_tools(site),
        without=build.knobs.without,
        libraries=libraries,
        log=log,
        jobs=jobs.count,
        seconds=round(time.monotonic() - began, 1),
        built=now("seconds"),
        units=units.seconds(tree),
    )
    cache.publish(record, wheel)
    shutil.rmtree(work, ignore_errors=True)
    return record


def _wheel(build: Build, tree: Path, work: Path, site: Site, say: Say) -> tuple[Path, Jobs, str]:
    """Compile; once more with half the jobs if the memory did not suffice.

    Returns the wheel, the jobs that it was made with, and the sha256 of what was said.
    """
    env = {**site.env, **site.toolkit.variables(), **build.variables, **_attention(build, work)}
    env |= _slowest_first(build, work, env)
    jobs, output = _jobs(build, site), ""
    while True:
        say(f"jobs: {jobs.count} ({jobs.why})")
        done = _compile(tree, work, site, env, jobs, say)
        output += done.output
        fewer = parallel.halved(jobs)
        if done.ok or jobs.is_retry or fewer.count == jobs.count:
            break
        if not parallel.ran_out_of_memory(done.output):
            break
        jobs = fewer
    if not done.ok and parallel.ran_out_of_memory(done.output):
        raise InfrastructureError(
            f"{build.source} needs more memory than this machine has left",
            cause=f"a compiler was killed, with {jobs.count} side by side",
            remedy="run it with fewer: --jobs N, or on a machine with more memory",
        )
    wheels = sorted((work / "out").glob("*.whl"))
    if not done.ok or len(wheels) != 1:
        raise BuildError(
            f"{build.source} does not build for {build.archs}",
            cause=triage.reason(done.output, Stage.BUILD)
            if not done.ok
            else f"its build left {len(wheels)} wheels",
            remedy=f"read its output above; the tree is in {tree}",
        )
    return wheels[0], jobs, hashlib.sha256(output.encode()).hexdigest()


def check_native(build: Build, statuses: Collection[Status]) -> None:
    """Refuse a wheel with GPU code and none of it for the GPU that it was built for.

    A compiler that was told another architecture leaves such a wheel, and says nothing. Raises
    BuildError.
    """
    found = set(statuses) - {Status.NO_GPU_CODE}
    if found and Status.NATIVE not in found:
        raise BuildError(
            f"the wheel of {build.source} holds no machine code for {build.archs}:"
            f" {', '.join(sorted(found))}",
            cause="the build was told another architecture than asked for",
            remedy="look for -gencode in the output, and at the variables of the build",
        )


def _check(build: Build, root: Path, site: Site) -> None:
    """Refuse what cannot go well, before an hour is spent on it."""
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < LEAST_ROOM:
        raise InfrastructureError(
            f"{free / 1e9:.1f} GB are free in {root}, and a build wants {LEAST_ROOM / 1e9:.0f}",
            remedy="free space (pinproof cache prune), or choose another place with --store DIR",
        )
    if shutil.which(site.toolkit.cxx, path=site.env.get("PATH", os.defpath)) is None:
        raise ConfigurationError(
            "there is no g++ for the host's part of the code", remedy="install g++"
        )
    if build.cuda not in ("", "installed") and site.toolkit.cuda != build.cuda:
        raise ConfigurationError(
            f"the build wants CUDA {build.cuda}; the toolkit in {site.toolkit.home} is"
            f" {site.toolkit.cuda}",
            remedy="name the toolkit with CUDA_HOME, or change the cuda axis",
        )


def _tree(build: Build, work: Path, site: Site, say: Say) -> Path:
    """Return the patched tree; the one that an earlier try left, where it was made whole."""
    stamp = work / "tree.json"
    known = read_json(stamp)
    if isinstance(known, dict) and Path(str(known.get("tree"))).is_dir():
        say(f"going on in {known['tree']}")
        return Path(known["tree"])
    shutil.rmtree(work, ignore_errors=True)
    fetched = functools.partial(
        source.fetch, python=build.python, installer=site.installer, say=say
    )
    tree = fetched(build.source, work / "tree")
    patching.apply((Path(each.path) for each in build.patches), tree)
    for saving in build.knobs.savings:
        if saving.attempt(tree) == 1:
            say(f"edited: {saving.name}")
    if build.attention is not None:
        other = fetched(build.attention, work / "attention")
        for edit in build.knobs.attention_edits:
            edit.apply(other)
            say(f"edited: {edit.name}")
        write_json(work / "attention.json", {"tree": str(other)})
    if build.project == "vllm":
        _use_existing_torch(tree, site, say)
    write_json(stamp, {"tree": str(tree)})
    return tree


def _use_existing_torch(tree: Path, site: Site, say: Say) -> None:
    """Take torch out of vLLM's own requirements, by vLLM's script for that."""
    for place in ("tools/use_existing_torch.py", "use_existing_torch.py"):
        if (tree / place).is_file():
            say(f"run {place} --prefix")
            done = process.run([site.python, place, "--prefix"], cwd=tree, env=dict(site.env))
            if not done.ok:
                raise BuildError(f"{place} failed", cause=done.output.strip()[-300:])
            return


def _attention(build: Build, work: Path) -> dict[str, str]:
    known = read_json(work / "attention.json") if build.attention is not None else None
    return {"VLLM_FLASH_ATTN_SRC_DIR": str(known["tree"])} if known else {}


def _slowest_first(build: Build, work: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Let ninja begin with the units that take longest, where it is known which those are."""
    real = shutil.which("ninja", path=env.get("PATH", os.defpath))
    if real is None or not build.knobs.slowest:
        return {}
    more = ninja_first.install(work / "bin", Path(sys.executable), build.knobs.slowest)
    path = os.pathsep.join((str(work / "bin"), env["PATH"]))
    return {**more, ninja_first.REAL: real, "PATH": path}


def _jobs(build: Build, site: Site) -> Jobs:
    if site.jobs is not None:
        return Jobs(count=site.jobs, why="asked for")
    return parallel.choose(parallel.room(), build.knobs.gib_per_unit)


def _compile(
    tree: Path, work: Path, site: Site, env: Mapping[str, str], jobs: Jobs, say: Say
) -> process.Finished:
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = ("wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--verbose")
    # Not for nvcc: a unit for one architecture has no second thread to give.
    limits = {"MAX_JOBS": str(jobs.count), "NVCC_THREADS": "1"}
    return process.run(
        [site.python, "-m", "pip", *words, "--wheel-dir", out, str(tree)],
        env={**LARGE_PAGES, **env, **limits},
        log=work / "build.log",
        on_line=units.Progress(say),
        keep=20_000_000,
        pass_fds=() if site.lock is None else (site.lock,),
    )


def _libraries(wheel: Path, work: Path, targets: str) -> tuple[dict[str, Any], ...]:
    """Audit the wheel for the first architecture that it was built for."""
    gpu = archs.parse(targets.partition(";")[0])
    tree = work / "audit"
    shutil.rmtree(tree, ignore_errors=True)
    found = Subject(name=wheel.name, root=subject.unpacked(wheel, tree))
    return tuple(library.read(each.path, each.file, gpu).to_json() for each in found.libraries())


def _tools(site: Site) -> dict[str, str]:
    """Return the versions of what built the wheel."""
    names = "torch setuptools ninja cmake wheel"
    query = (
        "import importlib.metadata as m, json, platform\n"
        "known = {d.name.lower(): d.version for d in m.distributions() if d.name}\n"
        f"found = {{n: known[n] for n in {names!r}.split() if n in known}}\n"
        "print('\\n' + json.dumps({'python': platform.python_version(), **found}))"
    )
    told = process.run([site.python, "-c", query], env=dict(site.env), timeout=60)
    gcc = process.run([site.toolkit.cxx, "-dumpfullversion"], env=dict(site.env), timeout=60)
    match = re.search(r"\{.*\}", told.output)
    known = json.loads(match[0]) if match else {}
    return {**known, "nvcc": site.toolkit.nvcc, "gcc": gcc.output.strip()}


def toolkit_for(build: Build, python: Path, into: Path, caller: Mapping[str, str]) -> Toolkit:
    """Return the toolkit of a build: of conda or wheels beside `python`, or the system's."""
    if (conda := toolkit.of_conda(python.parents[1], into)) is not None:
        return conda
    sites = sorted(python.parents[1].glob("lib/python*/site-packages/nvidia/cu*/bin/nvcc"))
    if sites:
        return toolkit.lay_out(sites[0].parents[3], into)
    return toolkit.of_system("" if build.cuda == "installed" else build.cuda, caller)
