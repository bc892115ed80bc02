"""Where pip was told to find packages; uv does not read that, so it is handed on.

Pip's constraints are left behind on purpose: the matrix says which versions a cell has, and a
cap that one machine carries would change what a cell means without a trace in its id.
"""

from __future__ import annotations

import configparser
import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pinproof.errors import ConfigurationError
from pinproof.run import process

#: The sections of a pip.conf that count for an install; a later one wins over an earlier one.
SECTIONS = ("global", "install")

#: Of an option of pip what is handed on.
KEYS = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert", "no-index")


@dataclass(frozen=True, kw_only=True, slots=True)
class PipConfig:
    """The sources of packages that pip is configured with. Addresses may hold passwords."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    no_index: bool = False

    def __repr__(self) -> str:
        return f"PipConfig({', '.join(self.kinds())})"

    def uv_env(self) -> dict[str, str]:
        """Return the sources as uv's variables.

        Variables and not arguments: nox prints arguments and ``ps`` shows them, with the
        passwords in them. Pip looks at all its indexes for the best version, so uv has to
        (``unsafe-best-match``) where there are several.
        """
        several = bool(self.extra_index_urls)
        values = {
            "UV_DEFAULT_INDEX": self.index_url,
            "UV_INDEX": " ".join(self.extra_index_urls),
            "UV_FIND_LINKS": ",".join(self.find_links),
            "UV_INDEX_STRATEGY": "unsafe-best-match" if several else "",
            "UV_INSECURE_HOST": " ".join(self.trusted_hosts),
            "SSL_CERT_FILE": self.cert,
        }
        return {name: value for name, value in values.items() if value}

    def pip_env(self) -> dict[str, str]:
        """Return the sources as pip's variables, for a pip that reads no configuration file."""
        values = {
            "PIP_INDEX_URL": self.index_url,
            "PIP_EXTRA_INDEX_URL": " ".join(self.extra_index_urls),
            "PIP_FIND_LINKS": " ".join(self.find_links),
            "PIP_TRUSTED_HOST": " ".join(self.trusted_hosts),
            "PIP_CERT": self.cert,
            "PIP_NO_INDEX": "1" if self.no_index else "",
            "PIP_CONFIG_FILE": os.devnull,
        }
        return {name: value for name, value in values.items() if value}

    def kinds(self) -> tuple[str, ...]:
        """Say what kinds of source there are, without an address."""
        index = "no index" if self.no_index else "a mirror" if self.index_url else "the index"
        extra, links = len(self.extra_index_urls), len(self.find_links)
        return (
            index,
            *([f"{extra} extra {'index' if extra == 1 else 'indexes'}"] if extra else []),
            *([f"{links} {'place' if links == 1 else 'places'} of wheels"] if links else []),
        )


def read(
    environ: Mapping[str, str] | None = None,
    prefixes: Sequence[str] = (sys.base_prefix, sys.prefix),
) -> PipConfig:
    """Read pip's configuration as pip does: files, then the environment, which wins over them.

    Pip itself is not asked: it takes 0.3 s to start, and may not be there. `prefixes` are the
    environments whose own ``pip.conf`` counts. Raises ConfigurationError for a broken file.
    """
    environ = os.environ if environ is None else environ
    settings = _settings(files(environ, prefixes))
    for key in KEYS:
        # Set to nothing is set: that is how a user switches a configured source off.
        if (value := environ.get(f"PIP_{key.replace('-', '_').upper()}")) is not None:
            settings[key] = value
    return PipConfig(
        index_url=settings.get("index-url", "").strip(),
        extra_index_urls=tuple(settings.get("extra-index-url", "").split()),
        find_links=tuple(settings.get("find-links", "").split()),
        trusted_hosts=tuple(settings.get("trusted-host", "").split()),
        cert=settings.get("cert", "").strip(),
        no_index=settings.get("no-index", "").strip().lower() in ("1", "true", "yes", "on"),
    )


def files(environ: Mapping[str, str], prefixes: Sequence[str]) -> Iterator[Path]:
    """Yield the files that pip looks for, a later one winning over an earlier one.

    They are those of pip's documentation, "Configuration": the system's, the user's, the
    environment's, and the one that PIP_CONFIG_FILE names, which takes the place of the user's.
    """
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    for directory in (environ.get("XDG_CONFIG_DIRS", "").strip() or "/etc/xdg").split(os.pathsep):
        yield Path(directory, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    if not (named and Path(named).exists()):
        yield home / ".pip" / "pip.conf"
        own = environ.get("XDG_CONFIG_HOME", "").strip()
        yield Path(own or home / ".config", "pip", "pip.conf")
    for prefix in dict.fromkeys(prefixes):
        yield Path(prefix, "pip.conf")
    if named:
        yield Path(named)


def _settings(places: Iterator[Path]) -> dict[str, str]:
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for place in places:
        parser = configparser.RawConfigParser()
        try:
            parser.read(place)  # passes over what is not there
        except (configparser.Error, ValueError, OSError) as error:
            # What the parser says of it may show a line with a password in it.
            raise ConfigurationError(
                f"pip's configuration {place} cannot be read: {type(error).__name__}",
                remedy="pip config debug",
            ) from None
        for section in SECTIONS:
            for name, value in parser.items(section) if parser.has_section(section) else ():
                found[section][name.replace("_", "-").removeprefix("--")] = value
    return found["global"] | found["install"]


@functools.cache
def python_with_pip() -> str | None:
    """Return a Python that has pip, or None: an environment that uv made has none of its own."""
    for python in (sys.executable, str(Path(sys.base_prefix) / "bin" / "python3"), "python3"):
        try:
            if process.run([python, "-c", "import pip"], timeout=60).ok:
                return python
        except OSError:
            continue
    return None
