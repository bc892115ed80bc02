"""Which wheel fits which Python and platform, this machine's or another's."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from packaging import tags
from packaging.utils import parse_wheel_filename

from pinproof.errors import ConfigurationError, ResolveError

_PLATFORM = re.compile(r"(?P<machine>x86_64|aarch64)-manylinux_2_(?P<minor>\d{1,2})")
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def best_wheel(files: Iterable[str], python: str, platform: str | None) -> str:
    """Return the file that pip would install for that Python on that platform.

    Raises ResolveError where none fits.
    """
    order = _supported(python, platform)
    ranked = [
        (min(order[tag] for tag in parse_wheel_filename(file)[3] if tag in order), file)
        for file in files
        if any(tag in order for tag in parse_wheel_filename(file)[3])
    ]
    if not ranked:
        where = platform or "this machine"
        raise ResolveError(f"no wheel for Python {python} on {where}: {files}", conflict=True)
    return min(ranked)[1]


@functools.lru_cache(maxsize=8)
def _supported(python: str, platform: str | None) -> dict[tags.Tag, int]:
    version = tuple(int(part) for part in python.split(".")[:2])
    platforms = platform_tags(platform)
    known = [
        *tags.cpython_tags(version, platforms=platforms),
        *tags.compatible_tags(version, f"cp{version[0]}{version[1]}", platforms),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(known)))}


def platform_tags(platform: str | None) -> list[str]:
    """Return the wheel platforms that `platform` takes, best first; None is this machine.

    Raises ConfigurationError for anything but MACHINE-manylinux_2_NN.
    """
    if platform is None:
        return list(tags.platform_tags())
    match = _PLATFORM.fullmatch(platform)
    if match is None:
        raise ConfigurationError(
            f"{platform!r} is no platform that wheels can be chosen for",
            remedy="write x86_64-manylinux_2_28 or such, with the target's glibc at the end",
        )
    machine, found = match["machine"], []
    for minor in range(int(match["minor"]), 4, -1):
        found.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY:
            found.append(f"{_LEGACY[minor]}_{machine}")
    return [*found, f"linux_{machine}"]
