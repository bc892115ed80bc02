"""The axes of a matrix and the kinds of value that they take."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from packaging.version import Version

from pinproof.errors import ConfigurationError, did_you_mean

#: The axes in the order in which cells, tables and labels name them.
AXES = ("python", "torch", "cuda", "triton", "flash-attn", "vllm")

#: What an axis that a matrix leaves out stands for, where that is not "none". A missing python is
#: the running one, which is not here: the id of a cell must not depend on who expands it.
IMPLIED = {"triton": "bundled"}

#: Where ``git:REF`` points; any other repository is written out as ``git+https://...@REF``.
REPOSITORIES = {
    "flash-attn": "https://github.com/Dao-AILab/flash-attention",
    "vllm": "https://github.com/vllm-project/vllm",
}

LONGEST = 300

#: An axis and its value.
Pair = tuple[str, str]

#: The choices along one direction of a product; each gives a value to one axis, or to several.
Dimension = tuple[tuple[Pair, ...], ...]

# Compiled where they are first used: most runs of nox meet no git value.
_NIGHTLY = r"nightly(?:-([1-9][0-9]{0,2})|@([0-9]{4}-[0-9]{2}-[0-9]{2}))?"
_VERSION = r"[0-9][0-9A-Za-z.!_+-]*"
_REF = r"[0-9A-Za-z_](?:[0-9A-Za-z_/+-]|\.(?!\.|$))*"
_URL = r"(?:https://[0-9A-Za-z.-]+(?::[0-9]+)?|file://)(?:/[0-9A-Za-z_.~%+-]+)+"


class Kind(StrEnum):
    """What sort of thing an axis value is; an expression reads it as ``torch.kind``."""

    VERSION = "version"
    SPECIFIER = "specifier"
    NIGHTLY = "nightly"
    GIT = "git"
    BUNDLED = "bundled"
    INSTALLED = "installed"
    NONE = "none"


#: How a value of each kind is written, for messages.
_WRITTEN = {
    Kind.VERSION: ("a version",),
    Kind.SPECIFIER: ("a specifier",),
    Kind.NIGHTLY: ("nightly", "nightly-N", "nightly@DAY"),
    Kind.GIT: ("git:REF",),
    Kind.BUNDLED: ("bundled",),
    Kind.INSTALLED: ("installed",),
    Kind.NONE: ("none",),
}

_PACKAGE = frozenset({Kind.VERSION, Kind.SPECIFIER, Kind.INSTALLED})

#: The kinds that make sense on each axis. Nothing can be tested without a Python and a torch.
KINDS: dict[str, frozenset[Kind]] = {
    "python": frozenset({Kind.VERSION}),
    "torch": _PACKAGE | {Kind.NIGHTLY},
    "cuda": frozenset({Kind.VERSION, Kind.INSTALLED, Kind.NONE}),
    "triton": _PACKAGE | {Kind.NIGHTLY, Kind.BUNDLED},
    "flash-attn": _PACKAGE | {Kind.GIT, Kind.NONE},
    "vllm": _PACKAGE | {Kind.NIGHTLY, Kind.GIT, Kind.NONE},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One value of one axis, taken apart.

    ``key`` is equal for two spellings of one value ("2.13" and "2.13.0"). ``version`` is the
    public version, None where the text does not give it; ``local`` its local part ("cu130").
    ``back`` says how many nightlies ago, ``day`` (ISO 8601) of which day; ``repository`` and
    ``ref`` belong to git values.
    """

    axis: str
    text: str
    kind: Kind
    key: str
    version: Version | None = None
    local: str = ""
    back: int = 0
    day: str = ""
    repository: str = ""
    ref: str = ""


def implied(axis: str) -> str:
    """Return what a cell that does not name `axis` has on it."""
    if axis == "python":
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    return IMPLIED.get(axis, "none")


def dimensions(
    axes: Mapping[str, Sequence[str]], groups: Iterable[Sequence[str]] = ()
) -> tuple[Dimension, ...]:
    """Return what the product of `axes` runs over, in canonical order.

    Axes of one group move together, value by value, and make one dimension. Raises ValueError
    where the axes of a group have different numbers of values.
    """
    together = [tuple(group) for group in groups]
    zipped = {name for group in together for name in group}
    together += [(name,) for name in axes if name not in zipped]
    # Two files that differ in the order of their keys must list their cells alike.
    together.sort(key=lambda group: min(AXES.index(name) for name in group))
    return tuple(
        tuple(
            tuple(zip(group, values, strict=True))
            for values in zip(*(axes[name] for name in group), strict=True)
        )
        for group in together
    )


def meaning(axes: Iterable[Pair]) -> frozenset[Pair]:
    """Return what a combination says; equal for two that mean the same, however written."""
    return frozenset(
        (name, parse(name, text).key)
        for name, text in axes
        if text != IMPLIED.get(name, "none")  # what goes without saying
    )


@functools.lru_cache(maxsize=4096)
def parse(axis: str, text: str) -> Value:
    """Return the value that `text` writes on `axis`.

    Raises ConfigurationError for an unknown axis, a version or specifier that does not parse,
    a git reference or URL with characters that a shell or git would interpret, and a kind of
    value that the axis cannot have.
    """
    if axis not in AXES:
        raise ConfigurationError(
            f"unknown axis {axis[:60]!r}.{did_you_mean(axis[:60], AXES)}",
            remedy=f"use one of: {', '.join(AXES)}",
        )
    if len(text) > LONGEST:
        raise ConfigurationError(f"a value of {len(text)} characters is too long for {axis}")
    value = _parse(axis, text)
    if value.kind not in KINDS[axis]:
        allowed = ", ".join(sorted(KINDS[axis]))
        raise ConfigurationError(
            f"{text!r} is of kind {value.kind}, which {axis} cannot be",
            remedy=f"the kinds of {axis} are: {allowed}",
        )
    return value


def _parse(axis: str, text: str) -> Value:
    if text in (Kind.BUNDLED, Kind.INSTALLED, Kind.NONE):
        return Value(axis=axis, text=text, kind=Kind(text), key=text)
    if match := re.fullmatch(_NIGHTLY, text):
        return _nightly(axis, text, int(match[1] or 0), match[2] or "")
    if text.startswith(("git:", "git+")):
        return _git(axis, text)
    if text[:1] in ("<", ">", "=", "!", "~"):
        return _specifier(axis, text)
    try:
        version = Version(text) if re.fullmatch(_VERSION, text) else None
    except ValueError:  # InvalidVersion, and int() of too many digits
        version = None
    if version is None:
        known = [word for kind, words in _WRITTEN.items() if kind in KINDS[axis] for word in words]
        *most, last = known
        listed = f"{', '.join(most)} or {last}" if most else last
        words = [word for word in known if word.isalpha()]
        raise ConfigurationError(
            f"{text!r} is not {listed}.{did_you_mean(text, words)}",
            remedy='write a range as a specifier, such as ">=2.8,<2.9"' if "*" in text else "",
        )
    public = Version(version.public)
    # Trailing zeros do not make another release, so they must not make another cell.
    key = re.sub(r"(?:\.0)+(?=$|[abr]|\.[pd])", "", public.public, count=1)
    local = version.local or ""
    return Value(
        axis=axis,
        text=text,
        kind=Kind.VERSION,
        key=f"{key}+{local}" if local else key,
        version=public,
        local=local,
    )


def _nightly(axis: str, text: str, back: int, day: str) -> Value:
    try:
        if day:
            date.fromisoformat(day)
    except ValueError:
        raise ConfigurationError(f"{text!r} names no day of the calendar") from None
    return Value(axis=axis, text=text, kind=Kind.NIGHTLY, key=text, back=back, day=day)


def _specifier(axis: str, text: str) -> Value:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        key = str(SpecifierSet(text))
    except (InvalidSpecifier, ValueError):
        raise ConfigurationError(f"{text!r} is not a version specifier") from None
    if not re.fullmatch(r"[\w.,<>=!~*+ -]+", text, re.ASCII):
        raise ConfigurationError(f"{text!r} has characters that a specifier cannot have")
    return Value(axis=axis, text=text, kind=Kind.SPECIFIER, key=key)


def _git(axis: str, text: str) -> Value:
    if text.startswith("git:"):
        url, ref = REPOSITORIES.get(axis, ""), text[4:]
    else:
        url, _, ref = text[4:].rpartition("@")
        if not re.fullmatch(_URL, url) or "/.." in url:
            raise ConfigurationError(
                f"{text!r} is not git+https://HOST/PATH@REF or git+file:///PATH@REF"
            )
    if not ref:
        raise ConfigurationError(
            f"{text!r} names no reference", remedy="name a branch, a tag or a commit: git:main"
        )
    if not re.fullmatch(_REF, ref) or ref.endswith((".lock", "/")) or "//" in ref:
        raise ConfigurationError(
            f"{text!r} has a git reference with characters that git or a shell would interpret",
            remedy="name a branch, a tag or a commit: letters, digits and . _ / + -",
        )
    return Value(axis=axis, text=text, kind=Kind.GIT, key=text, repository=url, ref=ref)
