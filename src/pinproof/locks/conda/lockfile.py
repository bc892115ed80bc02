"""conda-lock files, schema 1: the exact packages of an environment, read, checked and written.

The form is the one of conda-lock (``conda-lock-v1.schema.json``), which admits no key of others;
what we add stands in ``custom_metadata``, which it leaves to the user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pinproof.errors import ConfigurationError
from pinproof.evidence.evidence import digest_of
from pinproof.locks.conda import document
from pinproof.locks.conda.document import Part
from pinproof.locks.redact import has_secret

#: The schema of conda-lock that is read and written, and the version of what we add to it.
SCHEMA, OURS = 1, "1"

_HASH = {"md5": re.compile("[0-9a-f]{32}"), "sha256": re.compile("[0-9a-f]{64}")}
#: Subdirectory and file name become paths on this disk: neither may lead out of its directory.
_URL = re.compile(
    r"(?:https?|file)://[^\s@]*/(?P<subdir>[a-z0-9-]+)/"
    r"(?P<file>[A-Za-z0-9_][A-Za-z0-9._+!-]*\.(?:conda|tar\.bz2))"
)


class NewerSchemaError(ConfigurationError):
    """A lock file of a schema that is not read here; it must not be written over."""


@dataclass(frozen=True, kw_only=True, order=True)
class Package:
    """One locked package: where it is and what its bytes are; ``platform`` whom it is for.

    ``depends`` are name and spec of each dependency. What is not of the ``category`` "main" is
    kept in the file and not installed.
    """

    name: str
    version: str
    build: str
    platform: str
    url: str
    md5: str
    sha256: str
    depends: tuple[tuple[str, str], ...] = ()
    category: str = "main"

    @property
    def file(self) -> str:
        """The name of the archive."""
        return self.url.rpartition("/")[2]

    @property
    def subdir(self) -> str:
        """The directory of its channel: a platform, or noarch."""
        return self.url.split("/")[-2]

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.build}"


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The exact packages of an environment, on each of its platforms.

    ``hashes`` tell by platform of which specification it is the lock, ``declared`` which virtual
    packages the machine was taken to have. ``created`` is the time, ISO 8601 in UTC. ``is_ours``
    is False for a file that conda-lock wrote: an edit of it cannot be told.
    """

    packages: tuple[Package, ...]
    platforms: tuple[str, ...]
    channels: tuple[str, ...]
    hashes: Mapping[str, str]
    sources: tuple[str, ...] = ()
    declared: Mapping[str, str] | None = None
    created: str = ""
    is_ours: bool = True

    def of(self, platform: str) -> tuple[Package, ...]:
        """Return what is installed on a platform."""
        return tuple(
            each for each in self.packages if each.platform == platform and each.category == "main"
        )

    def version(self, name: str, platform: str) -> str:
        """Return the version of a package there, or ""."""
        return next((each.version for each in self.of(platform) if each.name == name), "")

    def digest(self, platform: str) -> str:
        """Return the digest of what is installed on a platform: equal for equal bytes."""
        return digest_of(sorted([each.file, each.sha256] for each in self.of(platform)))

    def text(self, comment: str = "") -> str:
        """Return the file's text."""
        plain = _document(self)
        own = {"pinproof": OURS, **(self.declared or {})}
        plain["metadata"]["custom_metadata"] = own
        own["pinproof-digest"] = _seal(plain)
        return document.write(plain, comment)


def parse(text: str, where: str, remedy: str = "") -> Lock:
    """Read the text of a lock, by whomever written.

    Raises ConfigurationError, with `where` and the place in it, for another schema, a package
    without a sha256 or from pip, a name twice, and a file of ours that was edited.
    """
    whole = document.parse(text, where, remedy)
    _check_schema(whole)
    metadata = whole.part("metadata")
    own = metadata.part("custom_metadata")
    if own.values and "pinproof" in own.values:
        _check_seal(whole, own)
    hashes = metadata.part("content_hash")
    platforms = metadata.texts("platforms")
    packages = tuple(sorted(_package(each) for each in whole.parts("package")))
    seen: set[tuple[str, str]] = set()
    for each in packages:
        if each.platform not in platforms:
            raise whole.error(each.name, f"is for {each.platform}, which the lock does not name")
        if (each.name, each.platform) in seen:
            raise whole.error(each.name, f"stands there twice for {each.platform}")
        seen.add((each.name, each.platform))
    declared = {key: own.text(key) for key in own.values if key.startswith("virtual-packages-")}
    return Lock(
        packages=packages,
        platforms=platforms,
        channels=tuple(each.text("url") for each in metadata.parts("channels")),
        hashes={platform: hashes.text(platform) for platform in hashes.values},
        sources=metadata.texts("sources", empty=True),
        declared=declared,
        created=str(metadata.part("time_metadata").values.get("created_at", "")),
        is_ours="pinproof" in own.values,
    )


def read(path: Path, remedy: str = "") -> Lock:
    """Read a lock file, as `parse`. Raises ConfigurationError where there is none, too."""
    return parse(document.text_of(path, remedy), path.name, remedy)


def is_address(url: str) -> bool:
    """Say if `url` is that of a package in a channel, and holds no secret."""
    return bool(_URL.fullmatch(url)) and not has_secret(url)


def moved(old: Lock, new: Lock) -> list[str]:
    """Say in a line for each package what moved from one lock to another."""
    lines: list[str] = []
    for platform in dict.fromkeys((*old.platforms, *new.platforms)):
        before = {each.name: each for each in old.of(platform)}
        after = {each.name: each for each in new.of(platform)}
        for name in sorted(before.keys() | after.keys()):
            was, now = before.get(name), after.get(name)
            if was is None or now is None:
                lines.append(f"{platform}: {now or was} {'is gone' if now is None else 'is new'}")
            elif str(was) != str(now):
                lines.append(f"{platform}: {was} is now {now.version} {now.build}")
            elif was.sha256 != now.sha256:
                lines.append(f"{platform}: {now} has other bytes under the same name")
    return lines


def same(old: Lock, new: Lock) -> bool:
    """Say if two locks are one but for the time at which they were made."""
    return replace(old, created="") == replace(new, created="")


def _check_schema(whole: Part) -> None:
    version = whole.values.get("version")
    if version == SCHEMA:
        own = whole.part("metadata").part("custom_metadata").values.get("pinproof", OURS)
        if own == OURS:
            return
        version = f"{version}, Pinproof's part {own!r},"
    if not isinstance(version, int | str):
        raise whole.error("version", "is missing: this is no conda-lock file")
    raise NewerSchemaError(
        f"{whole.where}: its schema {version} is not the one that is read here, {SCHEMA}",
        cause="a newer program wrote it, or this is no conda-lock file",
        remedy="update Pinproof, or remove the file and make it again",
    )


def _check_seal(whole: Part, own: Part) -> None:
    plain = {key: dict(v) if key == "metadata" else v for key, v in whole.values.items()}
    named = own.text("pinproof-digest")
    kept = {key: text for key, text in own.values.items() if key != "pinproof-digest"}
    plain["metadata"]["custom_metadata"] = kept
    if _seal(plain) != named:
        raise ConfigurationError(
            f"{whole.where} was edited: it does not match the digest that it was written with",
            remedy=whole.remedy or "make it again, or bring the committed one back",
        )


def _seal(plain: Mapping[str, Any]) -> str:
    packages = plain.get("package")
    try:
        if isinstance(packages, list):  # conda-lock writes them in another order than we
            plain = {**plain, "package": sorted(map(digest_of, packages))}
        return digest_of(plain)
    except TypeError:  # a date, which YAML makes of what looks like one, and we never write
        return ""


def _package(part: Part) -> Package:
    name = part.text("name")
    part = replace(part, where=f"{part.where} ({name[:60]})")
    if part.text("manager") != "conda":
        raise part.error("manager", "is not conda: the wheels of a cell come from matrix.toml")
    hashes = part.part("hash")
    for kind, form in _HASH.items():
        if not form.fullmatch(str(hashes.values.get(kind) or "")):
            raise hashes.error(kind, "is missing or no digest: its bytes could not be checked")
    url = part.text("url")
    if not is_address(url):
        raise part.error("url", "is no address of a .conda or .tar.bz2 without a password")
    depends = part.part("dependencies")
    return Package(
        name=name,
        version=part.text("version"),
        build=part.text("build", ""),
        platform=part.text("platform"),
        url=url,
        md5=hashes.text("md5"),
        sha256=hashes.text("sha256"),
        depends=tuple(sorted((each, depends.text(each, "")) for each in depends.values)),
        category=part.text("category", "main"),
    )


def _document(lock: Lock) -> dict[str, Any]:
    """Return the lock as conda-lock orders it."""
    metadata: dict[str, Any] = {
        "content_hash": dict(lock.hashes),
        "channels": [{"url": each, "used_env_vars": []} for each in lock.channels],
        "platforms": list(lock.platforms),
        "sources": list(lock.sources),
    }
    if lock.created:
        metadata["time_metadata"] = {"created_at": lock.created}
    return {"version": SCHEMA, "metadata": metadata, "package": [*map(_entry, lock.packages)]}


def _entry(package: Package) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "manager": "conda",
        "platform": package.platform,
        "dependencies": dict(package.depends),
        "url": package.url,
        "hash": {"md5": package.md5, "sha256": package.sha256},
        **({"build": package.build} if package.build else {}),
        "category": package.category,
        "optional": package.category != "main",
    }
