"""Where nightlies and wheels of single commits are published.

A setting, since no registry has a place that holds for everybody: the environment, else the
matrix file, else an index of pip's or uv's configuration that says by its path what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from pinproof.errors import ConfigurationError

if TYPE_CHECKING:
    from pinproof.matrix.matrixfile import Indexes as Named

#: The variables that say where, by kind of index.
VARIABLES = {"nightly": "PINPROOF_NIGHTLY_INDEX", "vllm": "PINPROOF_VLLM_INDEX"}

#: An index of one build of torch's nightlies, as users give it to pip.
_NIGHTLY = re.compile(r"(?P<base>\S+/nightly)/(?:cpu|cu\d+|rocm[\d.]+|xpu)/?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The address of each kind of index. Addresses may hold passwords: they are never printed."""

    places: Mapping[str, str] = field(default_factory=dict, repr=False)

    def url(self, index: str) -> str:
        """Return the address of an index by its name, ``nightly/cu130`` or ``vllm/COMMIT/cu130``.

        Raises ConfigurationError where nobody said where that kind of index is.
        """
        kind, _, rest = index.partition("/")
        base = self.places.get(kind, "")
        if not base:
            more = ", or add it to pip's extra-index-url" if kind == "nightly" else ""
            raise ConfigurationError(
                f"nothing says where the {kind} index is",
                remedy=f"set {VARIABLES[kind]}, or {kind} in [indexes] of the matrix file{more}",
            )
        return f"{base.rstrip('/')}/{rest}"

    def relative(self, index: str, url: str) -> str:
        """Return the address of a file without that of its kind of index, else its name alone.

        It has no user, query or fragment: these are keys of the one who asked.
        """
        base = _bare(self.places.get(index.partition("/")[0], "")).rstrip("/") + "/"
        url = _bare(url)
        return url.removeprefix(base) if url.startswith(base) else url.rpartition("/")[2]

    def with_user(self, index: str, url: str) -> str:
        """Return the address of a file with the user of its index, if both are of one server."""
        return with_user(self.url(index), url)


def find(named: Named | None, uv: Mapping[str, str], environ: Mapping[str, str]) -> Places:
    """Return where the indexes are: as `environ` says, else the matrix file, else pip and `uv`.

    `named` is what the matrix file says, `uv` are the variables with which uv is called.
    """
    variables = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX")
    configured = [address for name in variables for address in uv.get(name, "").split()]
    found = {
        "nightly": (named.nightly if named else "") or _nightly_of(configured),
        "vllm": named.vllm if named else "",
    }
    found |= {kind: environ[name] for kind, name in VARIABLES.items() if environ.get(name)}
    return Places(places={kind: place for kind, place in found.items() if place})


def with_user(index: str, url: str) -> str:
    """Return `url` with the user of the address `index`, if both are of one server."""
    own, parts = urlsplit(index), urlsplit(url)
    user, _, place = own.netloc.rpartition("@")
    if not user or (parts.scheme, parts.netloc.rpartition("@")[2]) != (own.scheme, place):
        return url
    return urlunsplit(parts._replace(netloc=own.netloc))


def _bare(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _nightly_of(configured: Iterable[str]) -> str:
    for address in configured:
        # uv's own form names an index: NAME=ADDRESS.
        if match := _NIGHTLY.fullmatch(re.sub(r"^[\w-]+=", "", address)):
            return match["base"]
    return ""
