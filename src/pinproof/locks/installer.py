"""How uv is called here: which uv, what it sees of the caller, where it finds packages."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pinproof.errors import InfrastructureError
from pinproof.locks import indexes, pipconfig
from pinproof.locks.indexes import Places
from pinproof.run import process

if TYPE_CHECKING:
    from pinproof.locks.lock import Request
    from pinproof.locks.resolution import Resolution
    from pinproof.matrix.matrixfile import Indexes

#: What a tool that talks to an index may see of the caller's environment. Of uv's own variables
#: only those that say where and how to fetch: a constraint or a backend would change the answer.
TOOL_ENV = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TMPDIR|NETRC|XDG_(CACHE|CONFIG|DATA)_(HOME|DIRS)"
    r"|SSL_CERT_(FILE|DIR)|\w+_PROXY|\w+_proxy"
    r"|RATTLER_\w+"
    r"|UV_(CACHE_DIR|NO_CACHE|OFFLINE|HTTP_TIMEOUT|CONCURRENT_\w+|NATIVE_TLS|SYSTEM_CERTS"
    r"|PYTHON_(INSTALL_DIR|DOWNLOADS|PREFERENCE)|KEYRING_PROVIDER|INSECURE_HOST|DEFAULT_INDEX"
    r"|INDEX(_URL|_STRATEGY|_\w+_(USERNAME|PASSWORD))?|EXTRA_INDEX_URL|FIND_LINKS|CONFIG_FILE)"
)


class House(Protocol):
    """What a resolution needs of a wheelhouse."""

    @property
    def directory(self) -> Path:
        """Where the wheels lie."""

    def recall(self, request: Request) -> Resolution | None:
        """Return what was resolved for `request` when the wheelhouse was made, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Installer:
    """How to call uv here. ``env`` may hold the passwords of indexes: it is never printed."""

    uv: str
    env: Mapping[str, str] = field(repr=False)
    offline: bool = False
    no_index: bool = False
    house: House | None = None
    sources: tuple[str, ...] = ()
    places: Places = field(default_factory=Places, repr=False)

    def reaching(self, names: Iterable[str]) -> Installer:
        """Return the installer that asks the indexes with these `names` beside the configured ones.

        Raises ConfigurationError where nothing says where one of them is.
        """
        names = tuple(names)
        if not names or self.house is not None:
            return self
        known = self.env.get("UV_INDEX", "").split()
        addresses = " ".join([*map(self.places.url, names), *known])
        # Pip's way: the best version of all indexes; what is on these is asked for exactly.
        more = {"UV_INDEX": addresses, "UV_INDEX_STRATEGY": "unsafe-best-match"}
        return replace(self, env={**self.env, **more})

    @property
    def source_args(self) -> tuple[str, ...]:
        """The arguments that say where wheels come from, of every uv command."""
        if self.house is not None:
            return ("--offline", "--no-index", "--find-links", str(self.house.directory))
        return (
            *(("--offline",) if self.offline else ()),
            *(("--no-index",) if self.no_index else ()),
        )

    @property
    def pip_args(self) -> tuple[str, ...]:
        """The same for pip, which has its own configuration besides."""
        if self.house is not None:
            return ("--no-index", "--find-links", str(self.house.directory))
        return ("--no-index",) if self.offline else ()

    @property
    def is_open(self) -> bool:
        """True where an index can be asked for more than what lies here."""
        return not (self.house or self.offline or self.no_index)


def find_uv() -> str:
    """Return the path of uv: the one that is a dependency of ours, else one on PATH."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise InfrastructureError("uv was not found", remedy="pip install uv")
    return found


@functools.cache
def uv_cache() -> Path:
    """Return the directory of uv's cache, which the environments are linked from."""
    env = {name: text for name, text in os.environ.items() if TOOL_ENV.fullmatch(name)}
    return Path(process.run([find_uv(), "cache", "dir"], env=env).output.strip())


def installer(
    *, offline: bool = False, house: House | None = None, named: Indexes | None = None
) -> Installer:
    """Return how to call uv: from `house` alone, or with pip's sources and those of uv's own.

    What the user set for uv itself wins over pip's configuration. `named` are the indexes of
    nightlies and commits that the matrix file names.
    """
    env = {name: text for name, text in os.environ.items() if TOOL_ENV.fullmatch(name)}
    if house is not None:
        return Installer(
            uv=find_uv(), env=env, offline=True, house=house, sources=("a wheelhouse",)
        )
    pip = pipconfig.read()
    env = {**pip.uv_env(), **env}
    return Installer(
        uv=find_uv(),
        env=env,
        offline=offline,
        no_index=pip.no_index,
        sources=pip.kinds(),
        places=indexes.find(named, env, os.environ),
    )
