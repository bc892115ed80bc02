"""Fetches single wheels with pip, from where pip was told to find packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pinproof.errors import InfrastructureError, ResolveError
from pinproof.locks import installer, pipconfig
from pinproof.locks.redact import redact
from pinproof.locks.wheeltags import platform_tags
from pinproof.run import process

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: How pip says that it found the project and no file for the target.
NO_FILE = ("No matching distribution found", "Could not find a version that satisfies")


@dataclass(frozen=True, kw_only=True)
class Target:
    """For whom a wheel is chosen: ``python`` "3.12", ``platform`` "x86_64-manylinux_2_35"."""

    python: str
    platform: str

    def words(self) -> Iterator[str]:
        """Yield pip's options."""
        yield from ("--python-version", self.python, "--implementation", "cp")
        for tag in platform_tags(self.platform):
            yield from ("--platform", tag)


def this_python() -> str:
    """Return the Python that runs, as a target names it."""
    return "{}.{}".format(*sys.version_info[:2])


def pip(source: Iterable[str] = ()) -> list[str]:
    """Return how to call a pip: this interpreter's, else one that uv fetches for the purpose.

    `source` are the options that say where alone packages come from; then no index is asked for it.
    """
    python = pipconfig.python_with_pip()
    if python is not None:
        return [python, "-m", "pip"]
    words = ("run", "--no-project", "--isolated", "--with", "pip", "--python", sys.executable)
    only = (*source, "--offline") if (source := tuple(source)) else ()
    return [installer.find_uv(), *words, *only, "--", "python", "-m", "pip"]


def pip_env(indexes: Iterable[str] = ()) -> Mapping[str, str]:
    """Return pip's sources and nothing else of its configuration, above all no constraints.

    `indexes` are addresses that are asked beside the configured ones.
    """
    inherited = {k: v for k, v in os.environ.items() if installer.TOOL_ENV.fullmatch(k)}
    known = pipconfig.read()
    more = replace(known, extra_index_urls=(*indexes, *known.extra_index_urls))
    return {**inherited, **more.pip_env()}


def wheel(requirement: Requirement, target: Target, into: Path) -> Path:
    """Fetch the one wheel of `requirement` for `target` into the empty directory `into`.

    Raises ResolveError where no wheel fits, InfrastructureError where pip cannot fetch it.
    """
    words = ("download", "--no-deps", "--only-binary", ":all:", "--dest", str(into))
    quiet = ("--progress-bar", "off", "--disable-pip-version-check", "--no-cache-dir")
    command = [*pip(), *words, *quiet, *target.words(), str(requirement)]
    done = process.run(command, env=pip_env())
    found = sorted(into.glob("*.whl"))
    if done.ok and found:
        return found[0]
    errors = [line for line in done.output.splitlines() if line.startswith("ERROR")]
    cause = redact(errors[0] if errors else done.output.strip()[-300:])
    if any(text in done.output for text in NO_FILE):
        raise ResolveError(
            f"no index has a wheel of {requirement} for Python {target.python} on"
            f" {target.platform}",
            conflict=True,
            cause="there is no such release, or it is published as source only",
            remedy="check the name and the version, or choose --python and --platform",
        )
    raise InfrastructureError(
        f"pip could not fetch {requirement}",
        cause=cause,
        remedy="check the network and the disk, then try again",
    )
