"""Fetches the source archive of a release, and checks its bytes, without running anything of it.

Not ``pip download``: that asks an archive for its name by running its setup.py, before anybody has
compared its sha256, and with the passwords of the indexes in its environment.
"""

from __future__ import annotations

import re
from pathlib import Path

from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.evidence.store import disk_error, sha256
from pinproof.locks import indexes, listing, solver
from pinproof.locks.installer import Installer

#: The variables of uv that hold addresses, with a user and a password where there are any.
ADDRESSES = (
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
)


def fetch(text: str, installer: Installer, *, python: str, into: Path, planned: str = "") -> Path:
    """Return the source archive of a release, such as "x==1.2", in the directory `into`.

    `python` "3.12" is the version that it is for, `planned` the sha256 that it must have, "" where
    that of the index is enough. Raises ConfigurationError where it is another one, ResolveError
    where there is none or it cannot be fetched, InfrastructureError where the disk refuses or the
    network may not be used.
    """
    pin, place = solver.archive_at(text, installer, python=python)
    wanted = planned or pin.sha256
    if pin.sha256 != wanted:
        raise _another(text, pin.file, wanted)
    if installer.offline and not place.startswith("file:"):
        raise InfrastructureError(
            f"the source of {text} is not fetched without a network",
            cause="of source archives only those that lie in the wheelhouse are here",
            remedy=f"put {pin.file} into the wheelhouse, or run it once with a network",
        )
    path = into / Path(pin.file).name
    try:
        into.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(path, error) from None
    cert = installer.env.get("SSL_CERT_FILE", "")
    listing.save(_with_user(place, installer), path, cert=cert)
    if sha256(path) != wanted:
        path.unlink()
        raise _another(text, pin.file, wanted)
    return path


def _with_user(place: str, installer: Installer) -> str:
    """Return `place` with the user and password of the configured address on the same server."""
    for name in ADDRESSES:
        for address in re.split(r"[\s,]+", installer.env.get(name, "")):
            place = indexes.with_user(re.sub(r"^[\w-]+=", "", address), place)
    return place


def _another(text: str, file: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(
        f"the index hands out another source of {text} than the one that was planned",
        cause=f"{file} has not the sha256 {wanted}",
        remedy="look at where pip and uv fetch from; nothing of it was unpacked or run",
    )
