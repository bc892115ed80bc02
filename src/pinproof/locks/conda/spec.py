"""A conda environment specification of envs/: what is asked for, before anything is solved."""

from __future__ import annotations

import platform as host
import re
from dataclasses import dataclass
from pathlib import Path

from pinproof.errors import ConfigurationError, did_you_mean
from pinproof.evidence.evidence import digest_of
from pinproof.locks.conda import document
from pinproof.locks.redact import has_secret

#: Where specifications and their locks lie, from the project's root.
SPECS, LOCKS = "envs", "lockfiles"

#: The environment of a CUDA that has none of its own.
FAMILY = "cuda-13.x"

#: The keys of a file: those of conda's own environment.yml, ``platforms`` as conda-lock reads it,
#: and what the target machine is declared to have.
KEYS = ("name", "channels", "platforms", "dependencies", "virtual-packages")

#: What a machine of a platform has without saying so, as conda-lock assumes it.
IMPLIED = {
    "linux-64": {"__unix": "0", "__linux": "5.10", "__glibc": "2.28", "__archspec": "1=x86_64"},
    "linux-aarch64": {
        "__unix": "0",
        "__linux": "5.10",
        "__glibc": "2.28",
        "__archspec": "1=aarch64",
    },
}

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_VIRTUAL = re.compile(r"__[a-z0-9_]+")
_VERSION = re.compile(r"[0-9][0-9A-Za-z._]*(=[0-9A-Za-z._]+)?")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What an environment is asked to be, on each of its platforms.

    ``channels`` are names or addresses, ``dependencies`` specs as conda writes them, ``declared``
    the virtual packages ("__cuda", "13.0") that the machine is taken to have: the lock is made for
    that machine and not for this one.
    """

    name: str
    channels: tuple[str, ...]
    platforms: tuple[str, ...]
    dependencies: tuple[str, ...]
    declared: tuple[tuple[str, str], ...] = ()

    def virtual_packages(self, platform: str) -> dict[str, str]:
        """Return name and "VERSION" or "VERSION=BUILD" of every virtual package there."""
        return dict(sorted({**IMPLIED[platform], **dict(self.declared)}.items()))

    def content_hash(self, platform: str) -> str:
        """Return the digest of all that decides the solution, but for the channels' contents."""
        return digest_of(
            {
                "channels": list(self.channels),
                "dependencies": sorted(self.dependencies),
                "platform": platform,
                "virtual packages": self.virtual_packages(platform),
            }
        )

    @property
    def file(self) -> str:
        """The specification's file, from the project's root."""
        return f"{SPECS}/{self.name}.yml"

    @property
    def lock_file(self) -> str:
        """The lock's file, from the project's root."""
        return lock_file(self.name)


def lock_file(name: str) -> str:
    """Return the file of the lock of an environment, from the project's root."""
    return f"{LOCKS}/{name}.conda-lock.yml"


def this_platform() -> str:
    """Return conda's name of this machine."""
    return "linux-aarch64" if host.machine() == "aarch64" else "linux-64"


def platform_of(platform: str) -> str:
    """Return conda's name for a platform of uv's, such as ``x86_64-manylinux_2_35``."""
    return "linux-aarch64" if platform.startswith("aarch64") else "linux-64"


def names(root: Path) -> list[str]:
    """Return the names of the environments that the project in `root` specifies."""
    return sorted(path.stem for path in (root / SPECS).glob("*.yml"))


def standing_for(name: str, root: Path) -> str:
    """Return the environment that a cell gets who asks for `name`: its own, else the family's."""
    known = names(root)
    own = name in known or not name.startswith("cuda-13.") or FAMILY not in known
    return name if own else FAMILY


def named(name: str, root: Path) -> Environment:
    """Return the specification called `name`. Raises ConfigurationError for none or a wrong one."""
    known = names(root)
    if name not in known:
        raise ConfigurationError(
            f"there is no conda environment {name[:60]!r}.{did_you_mean(name[:60], known)}",
            remedy=f"use one of: {', '.join(known)}"
            if known
            else f"write its specification, {SPECS}/{name[:60]}.yml",
        )
    return read(root / SPECS / f"{name}.yml")


def read(path: Path) -> Environment:
    """Read a specification. Raises ConfigurationError, with the place, for what is wrong in it."""
    whole = document.read(path, f"{SPECS}/{path.name}")
    whole.keys(KEYS)
    name = whole.text("name")
    if name != path.stem or not _NAME.fullmatch(name):
        raise whole.error("name", f"must be that of its file, {path.stem!r}")
    platforms = whole.texts("platforms")
    for platform in platforms:
        if platform not in IMPLIED:
            raise whole.error(
                "platforms",
                f"{platform!r} cannot be locked for.{did_you_mean(platform, IMPLIED)}"
                f" There is: {', '.join(IMPLIED)}",
            )
    channels = whole.texts("channels")
    for channel in channels:
        if has_secret(channel):
            raise whole.error(
                "channels", "hold a password or token: keep it in rattler's credentials"
            )
    return Environment(
        name=name,
        channels=channels,
        platforms=tuple(dict.fromkeys(platforms)),
        dependencies=_dependencies(whole),
        declared=_virtual(whole.part("virtual-packages")),
    )


def _dependencies(whole: document.Part) -> tuple[str, ...]:
    values = whole.values.get("dependencies")
    if isinstance(values, list) and any(isinstance(each, dict) for each in values):
        raise whole.error(
            "dependencies", "hold a pip section: the wheels of a cell come from matrix.toml"
        )
    found = tuple(" ".join(each.split()) for each in whole.texts("dependencies"))
    if not any(re.match(r"(\S+::)?python\b(?!-)", each) for each in found):
        raise whole.error("dependencies", "must name a python: a cell is run by it")
    return found


def _virtual(part: document.Part) -> tuple[tuple[str, str], ...]:
    for name in part.values:
        if not _VIRTUAL.fullmatch(name):
            raise part.error(repr(name[:60]), 'is no virtual package, such as "__cuda"')
        if not _VERSION.fullmatch(part.text(name)):
            raise part.error(name, 'must be a version, such as "13.0", or "1=x86_64" with a build')
    return tuple(sorted((name, part.text(name)) for name in part.values))
