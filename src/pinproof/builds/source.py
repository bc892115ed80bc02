"""What a wheel is built from: a release, an archive, a commit, a tree, or a wheel that is there.

A source is described before anything is fetched: its ``identity`` is part of the build's key, so
a moving name (a branch, a directory that is edited) is made into what it stands for now.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pinproof.audit import archive
from pinproof.errors import ConfigurationError, InfrastructureError, ResolveError
from pinproof.evidence.store import sha256
from pinproof.locks import gitref, sdist
from pinproof.locks.installer import Installer
from pinproof.locks.redact import redact
from pinproof.matrix import axis
from pinproof.matrix.axis import Value
from pinproof.run import process

#: What a build leaves in a tree; it is no part of the source.
LEFTOVERS = (".git", "build", "dist", "*.egg-info", "__pycache__", "*.so", ".deps")

#: What vLLM builds its FlashAttention from.
ATTENTION = "vllm-flash-attn"

Say = Callable[[str], None]


class Kind(StrEnum):
    """Where a source comes from."""

    RELEASE = "release"
    ARCHIVE = "archive"
    GIT = "git"
    TREE = "tree"
    WHEEL = "wheel"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source that does not move any more.

    ``place`` is the version of a release, the path of a file or a tree, or the address of a
    repository; ``identity`` is what names its contents: a sha256 (of a release that no index was
    asked for its version), or the commit.
    """

    project: str
    kind: Kind
    place: str
    identity: str

    def __str__(self) -> str:
        if self.kind is Kind.RELEASE:
            return f"{self.project}=={self.place}"
        if self.kind is Kind.GIT:
            return f"{self.project} @ git+{self.place}@{self.identity}"
        return f"{self.project} from {Path(self.place).name}"


def describe(project: str, text: str, *, commit: Callable[[Value], str] = gitref.commit) -> Source:
    """Return the source that `text` names: a version, ``git+URL@REF``, a directory, or a file.

    `commit` says which commit a git value names.

    Raises ConfigurationError for any other text and for a tree that is not whole, ResolveError
    where a git reference cannot be made into a commit.
    """
    path = Path(text)
    if text.startswith(("git+", "git:")):
        value = repository(project, text)
        found = commit(value)
        return Source(project=project, kind=Kind.GIT, place=value.repository, identity=found)
    if path.is_dir():
        _check_tree(path)
        digest = tree_digest(path)
        return Source(project=project, kind=Kind.TREE, place=str(path.resolve()), identity=digest)
    if path.is_file():
        kind = Kind.WHEEL if path.suffix == ".whl" else Kind.ARCHIVE
        place = str(path.resolve())
        return Source(project=project, kind=kind, place=place, identity=sha256(path))
    version = text.partition("==")[2] if text.startswith((project, "==")) else text
    if re.fullmatch(r"\d[\w.+!-]*", version, re.ASCII):
        return Source(project=project, kind=Kind.RELEASE, place=version, identity=version)
    raise ConfigurationError(
        f"{text!r} is no source of {project}",
        cause="there is no such file or directory, and it is no version and no git+URL@REF",
        remedy=f"name a version, git+https://HOST/PATH@REF, a tree, or an archive of {project}",
    )


def repository(project: str, text: str) -> Value:
    """Return the git value that `text` is; vLLM's FlashAttention is no axis, but a fork of one."""
    if project != ATTENTION:
        return axis.parse(project, text)
    if text.startswith("git:"):
        text = f"git+https://github.com/vllm-project/flash-attention@{text.removeprefix('git:')}"
    return axis.parse("flash-attn", text)


def fetch(source: Source, into: Path, *, python: str, installer: Installer, say: Say) -> Path:
    """Lay the tree of `source` out in the new directory `into`, and return its root.

    `installer` says where a release is looked for, `python` "3.12" for whom. Nothing of the source
    is run. Raises ConfigurationError for a source that is not whole or not the one that was
    planned, ResolveError where there is no such release or commit, InfrastructureError where the
    network or the disk fails, or may not be used.
    """
    match source.kind:
        case Kind.GIT:
            if installer.offline and not source.place.startswith("file:"):
                raise InfrastructureError(
                    f"{source.project} from git is not fetched without a network",
                    remedy="run it once with one: the wheel stays in the cache and in archives",
                )
            return _clone(source, into, say)
        case Kind.TREE:
            return _copy(Path(source.place), into)
        case Kind.RELEASE:
            say(f"fetch the source of {source}")
            planned = "" if source.identity == source.place else source.identity
            folder = into.with_name(f"{into.name}.sdist")
            found = sdist.fetch(str(source), installer, python=python, into=folder, planned=planned)
            return _only_directory(archive.unpack(found, into), found)
        case Kind.ARCHIVE:
            found = Path(source.place)
            if sha256(found) != source.identity:
                raise ConfigurationError(f"{found} changed while it was waited for")
            return _only_directory(archive.unpack(found, into), found)
        case Kind.WHEEL:
            raise ConfigurationError(f"{source} is built already", remedy="install it as it is")


def tree_digest(root: Path) -> str:
    """Return the sha256 of every file of a tree: names, modes and contents, without leftovers."""
    digest = hashlib.sha256()
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            digest.update(f"{name}\0link\0{path.readlink()}\0".encode())
            continue
        runs = "x" if path.stat().st_mode & 0o100 else "-"
        digest.update(f"{name}\0{runs}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    skip = shutil.ignore_patterns(*LEFTOVERS)
    for directory, names, files in os.walk(root):
        skipped = skip(directory, [*names, *files])
        names[:] = sorted(name for name in names if name not in skipped)
        links = [name for name in names if Path(directory, name).is_symlink()]
        for name in sorted([*links, *(file for file in files if file not in skipped)]):
            yield Path(directory, name)


def _check_tree(root: Path) -> None:
    """Raise ConfigurationError for a tree that reaches outside, or lacks a submodule."""
    whole = root.resolve()
    for path in _files(root):
        if path.is_symlink() and not path.resolve().is_relative_to(whole):
            raise ConfigurationError(
                f"{path} leads outside of the source tree, to {path.readlink()}",
                remedy="put a copy in its place",
            )
    if (root / ".gitmodules").is_file() and (root / ".git").exists():
        _check_submodules(root)


def _check_submodules(root: Path) -> None:
    words = {"-": "is missing", "+": "is not at the commit that the tree names", "U": "conflicts"}
    done = _git(root, "submodule", "status", "--recursive")
    for line in done.splitlines():
        if line[:1] in words:
            raise ConfigurationError(
                f"the submodule {line[1:].split()[1]} of {root} {words[line[0]]}",
                remedy=f"git -C {root} submodule update --init --recursive",
            )
    command = "git status --porcelain | sed 's/.*/dirty/'"
    if "dirty" in _git(root, "submodule", "foreach", "--quiet", "--recursive", command).split():
        raise ConfigurationError(
            f"a submodule of {root} has changes that no commit holds",
            remedy="commit them in the submodule, or take them back",
        )


def _copy(root: Path, into: Path) -> Path:
    try:
        # The git directory goes along: versions are read from it.
        skip = shutil.ignore_patterns(*(name for name in LEFTOVERS if name != ".git"))
        shutil.copytree(root, into, symlinks=True, ignore=skip)
    except (OSError, shutil.Error) as error:
        raise InfrastructureError(f"{root} cannot be copied: {error}") from None
    return into


def _clone(source: Source, into: Path, say: Say) -> Path:
    """Fetch one commit and its submodules, without the history where the server allows it."""
    fetch_commit(into, source.place, source.identity, say)
    local = _allowing(source.place)
    deep = ("submodule", "update", "--init", "--recursive")
    if not _tries(into, *local, *deep, "--depth", "1") and not _tries(into, *local, *deep):
        raise InfrastructureError(
            f"a submodule of {source} cannot be fetched",
            cause="its repository is not reachable, or has not the commit",
            remedy="check the network, or build from a tree that has its submodules",
        )
    if (into / ".gitmodules").is_file():
        _check_submodules(into)
    return into


def fetch_commit(into: Path, place: str, commit: str, say: Say, *, bare: bool = False) -> None:
    """Fetch one commit of the repository at `place` into the directory `into`, and check it out.

    A `bare` one is not checked out, and its files come when `file_of` asks for them, where the
    server allows that. Raises ResolveError for an unknown commit, InfrastructureError where the
    repository cannot be reached.
    """
    into.mkdir(parents=True, exist_ok=True)
    local = _allowing(place)
    few = ("--filter=blob:none",) if bare else ()
    _git(into, "init", "--quiet")
    _git(into, "remote", "add", "origin", place)
    say(f"fetch {commit} of {redact(place)}")
    if not _tries(into, *local, "fetch", "--quiet", "--depth", "1", *few, "origin", commit):
        say("the server gives no single commit: fetching the history")
        if not _tries(into, *local, "fetch", "--quiet", "--tags", *few, "origin"):
            raise InfrastructureError(
                f"{redact(place)} cannot be fetched", remedy="check the network"
            )
    got = ("cat-file", "-e", f"{commit}^{{commit}}") if bare else ("checkout", "-q", "--detach")
    if not _tries(into, *got, *(() if bare else (commit,))):
        raise ResolveError(
            f"{redact(place)} has no commit {commit}",
            conflict=True,
            remedy="name a branch, a tag or a full commit of that repository",
        )


def file_of(tree: Path, commit: str, path: str) -> str | None:
    """Return a file of a commit that `fetch_commit` fetched, None where it has none.

    Raises InfrastructureError where it has one, and the server does not hand it out.
    """
    if path not in _git(tree, "ls-tree", "--name-only", commit, path).splitlines():
        return None
    return _git(tree, *_allowing("file:"), "show", f"{commit}:{path}")


def _allowing(place: str) -> tuple[str, ...]:
    return ("-c", "protocol.file.allow=always") if place.startswith("file:") else ()


def _tries(tree: Path, *words: str) -> bool:
    env = process.inherited(GIT_TERMINAL_PROMPT="0")
    return process.run(["git", "-C", tree, *words], env=env).ok


def _git(tree: Path, *words: str) -> str:
    try:
        done = process.run(["git", "-C", tree, *words])
    except OSError as error:
        raise InfrastructureError(f"git cannot be started: {error.strerror}") from None
    if not done.ok:
        raise InfrastructureError(
            f"git {words[0]} failed in {tree}", cause=redact(done.output.strip())[-300:]
        )
    return done.output


def _only_directory(unpacked: Path, found: Path) -> Path:
    inside = [path for path in unpacked.iterdir() if path.is_dir()]
    if len(inside) != 1:
        raise ConfigurationError(
            f"{found.name} is no source archive: it holds {len(inside)} directories, and not one"
        )
    return inside[0]
