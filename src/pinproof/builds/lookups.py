"""What a plan has to know of a cell's source builds, and only a look at the world tells.

Repositories are asked, patch files read, this machine's nvcc called: here, so that the plan itself
is made of values alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pinproof.builds import build as builds
from pinproof.builds import declared, source, toolkit
from pinproof.builds.build import Patch
from pinproof.builds.declared import Declared
from pinproof.builds.source import Source
from pinproof.locks import gitref
from pinproof.locks.fixed import Fixed, applied
from pinproof.locks.gitref import Reach
from pinproof.matrix import axis as axes
from pinproof.matrix import matrixfile
from pinproof.matrix.axis import Kind
from pinproof.options import root

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell
    from pinproof.matrix.matrixfile import Matrix


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was seen of the builds of a cell; nothing, where nothing is built.

    ``vllm`` is what the vLLM that is built declares, None where none is; ``attention`` the other
    source of its FlashAttention, None for its own; ``cuda`` the release of this machine's toolkit
    where something is built with the installed one, "" elsewhere; ``patches`` are by project.
    """

    vllm: Declared | None = None
    attention: Source | None = None
    cuda: str = ""
    patches: Mapping[str, tuple[Patch, ...]] = field(default_factory=dict)


def look(
    cell: Cell,
    matrix: Matrix,
    fixed: tuple[Fixed, ...] = (),
    *,
    memory: Path | None = None,
    reach: Reach = Reach.ANY,
) -> Looked:
    """Look at what the source builds of `cell` stand on.

    `fixed` is what its moving values stand for, `memory` the directory that keeps what commits
    declare, `reach` says which repositories may be asked. Raises ResolveError for a commit that
    cannot be had or understood, ConfigurationError for a patch that is not there.
    """
    settings, cell = matrixfile.settings(matrix, cell), applied(cell, fixed)
    built = builds.needed(cell)
    found = _declared(cell, fixed, memory, reach) if "vllm" in built else None
    return Looked(
        vllm=found,
        attention=_attention(settings.attention, _known(settings.attention, fixed), reach)
        if found and settings.attention
        else None,
        cuda=toolkit.installed(os.environ) if built and cell.axis("cuda") == Kind.INSTALLED else "",
        patches={
            project: tuple(
                Patch.read(root() / file) for name, file in settings.patches if name == project
            )
            for project in built
        },
    )


def _declared(cell: Cell, fixed: Iterable[Fixed], memory: Path | None, reach: Reach) -> Declared:
    """Return what the vLLM that is built for `cell` declares, at the locked commit if there is one.

    Raises ResolveError.
    """
    value = axes.parse("vllm", cell.axis("vllm"))
    commit = next((each.commit for each in fixed if each.axis == "vllm" and each.commit), value.ref)
    return declared.of(replace(value, ref=commit), memory, reach)


def _known(attention: str, fixed: Iterable[Fixed]) -> str:
    """Return the commit that the source of a FlashAttention was fixed to, else ""."""
    commits = {each.asked: each.commit for each in fixed if each.axis == source.ATTENTION}
    return commits.get(attention, "")


@functools.cache
def _attention(text: str, known: str, reach: Reach) -> Source:
    """Return the source of vLLM's FlashAttention; a moving name is asked once in a run.

    `known` is its commit, "" where it has to be asked for.
    """

    def commit(value: axes.Value) -> str:
        return known or gitref.commit(value, reach)

    return source.describe(source.ATTENTION, text, commit=commit)
