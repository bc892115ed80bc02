"""What a vLLM that no index has declares: the packages that it runs with and is built with.

They stand in its repository, beside the commit that is built: ``requirements/cuda.txt`` (with what
that includes by ``-r``) and ``[build-system] requires`` of ``pyproject.toml``. Every line about
torch is left out, as vLLM's own `use_existing_torch.py` does: the cell says which torch it is.
"""

from __future__ import annotations

import functools
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from pinproof.builds import source
from pinproof.errors import ConfigurationError, InfrastructureError, ResolveError
from pinproof.evidence.evidence import digest_of
from pinproof.evidence.store import SHORT, read_json, write_json
from pinproof.locks import gitref
from pinproof.locks.gitref import Reach
from pinproof.matrix.axis import Value

#: Where the requirements of a CUDA build stand, newer layouts first.
LISTS = ("requirements/cuda.txt", "requirements-cuda.txt")

#: What its wheels do not ask for either (setup.py leaves it out): the package index has it no more.
LEFT_OUT = re.compile(r"flashinfer-cubin\b")

#: Returns the text of a file of the commit by its path, or None where it has none.
Read = Callable[[str], str | None]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The commit that a reference names now, and its requirements, to run and to build."""

    commit: str
    runtime: tuple[str, ...]
    build: tuple[str, ...]


def of(value: Value, memory: Path | None = None, reach: Reach = Reach.ANY) -> Declared:
    """Return what the git value of the vllm axis declares; each value is asked once.

    What a commit declares never changes: the directory `memory` keeps it for when there is no
    network; `reach` says who may be asked. Raises ResolveError where the repository, the reference
    or the network fails (a conflict only where there is no such reference, or it is no vLLM).
    """
    found = _of(value, memory, reach)
    if isinstance(found, ResolveError):
        raise found
    return found


@functools.cache
def _of(value: Value, memory: Path | None, reach: Reach) -> Declared | ResolveError:
    try:
        commit = gitref.commit(value, reach)
        kept = memory / f"{digest_of([value.repository, commit])[:SHORT]}.json" if memory else None
        if known := _recalled(kept):
            return known
        if not reach.has(value):
            raise ResolveError(
                f"nothing at hand says what {value.axis} at commit {commit[:12]} requires",
                conflict=False,
                cause="no network is used, and no earlier run has read it",
                remedy="run the cell where there is a network, and keep its store",
            )
        with tempfile.TemporaryDirectory(prefix="pinproof-") as scratch:
            tree = Path(scratch)
            source.fetch_commit(tree, value.repository, commit, lambda line: None, bare=True)
            found = read(lambda path: source.file_of(tree, commit, path), commit)
        if kept is not None:
            write_json(kept, asdict(found))
        return found
    except ResolveError as error:
        return error
    except InfrastructureError as error:
        return ResolveError(
            f"{value.axis} {value.text}: {error.what}", conflict=False, remedy=error.remedy
        )
    except ConfigurationError as error:
        return ResolveError(
            f"{value.axis} {value.text}: {error.what}", conflict=True, remedy=error.remedy
        )


def _recalled(kept: Path | None) -> Declared | None:
    known = read_json(kept) if kept is not None else None
    if not isinstance(known, dict):
        return None
    lists = {name: tuple(known[name]) for name in ("runtime", "build")}
    return Declared(commit=known["commit"], **lists)


def read(text_of: Read, commit: str) -> Declared:
    """Return what the files of a commit declare. Raises ConfigurationError for no vLLM."""
    listed = next((path for path in LISTS if text_of(path) is not None), None)
    if listed is None:
        raise ConfigurationError(
            f"commit {commit[:12]} lists no requirements of a CUDA build",
            remedy=f"name a repository with {LISTS[0]}, as vLLM's has",
        )
    try:
        project = tomllib.loads(text_of("pyproject.toml") or "")
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"its pyproject.toml is damaged: {error}") from None
    build = project.get("build-system", {}).get("requires", [])
    return Declared(
        commit=commit,
        runtime=tuple(dict.fromkeys(_lines(text_of, listed, set()))),
        build=tuple(text for text in build if not _is_torch(text)),
    )


def _lines(text_of: Read, path: str, seen: set[str]) -> Iterator[str]:
    """Yield the requirements of a file and of those that it includes."""
    if path in seen:
        return
    seen.add(path)
    for line in (text_of(path) or "").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        included = re.fullmatch(r"(?:-r|--requirement)[ =]+(\S+)", text)
        if included:
            yield from _lines(text_of, _beside(path, included[1]), seen)
        elif text and not (text.startswith("-") or _is_torch(text) or LEFT_OUT.match(text)):
            yield text


def _beside(path: str, other: str) -> str:
    return str(PurePosixPath(path).parent / other).removeprefix("./")


def _is_torch(text: str) -> bool:
    return "torch" in text.lower()
