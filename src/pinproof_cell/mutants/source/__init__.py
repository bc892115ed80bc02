"""Mutants of our own Triton kernels: their source with one edit, run in Triton's interpreter."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.mutants.mutant import Attention, Mutant
from pinproof_cell.mutants.source import backward, forward, memory, scores
from pinproof_cell.mutants.source.edit import KERNELS, Edit, edited

#: The honest kernel that these are made from.
SOURCE = "our kernel"

EDITS = (*forward.EDITS, *scores.EDITS, *memory.EDITS, *backward.EDITS)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    # Triton reads the source of its kernels from a file, also after the import.
    folder = tempfile.TemporaryDirectory(prefix="pinproof-mutants-")
    sys.path.append(folder.name)
    return folder


@cache
def _load(edit: Edit) -> ModuleType:
    """Import a copy of all kernels, one of them edited, as a package of its own."""
    name = f"kernels_{edit.id.replace('-', '_')}"
    folder = Path(_folder().name) / name
    folder.mkdir(exist_ok=True)
    for path in KERNELS.glob("*.py"):
        text = edited(edit) if path.name == edit.file else path.read_text(encoding="utf-8")
        copied = text.replace("pinproof_cell.kernels", name)
        (folder / path.name).write_text(copied, encoding="utf-8")
    importlib.invalidate_caches()
    return importlib.import_module(f"{name}.reference")


class Reference:
    """Our kernels as a provider: `load` imports their module `reference`, when first called.

    Dropout draws its mask from torch's generator, again in the backward.
    """

    def __init__(self, load: Callable[[], ModuleType]) -> None:
        self._load = load

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
        """Attend."""
        return self._load().attention(q, k, v, keep=_keep(q, k, v, rest), **rest)

    def backward(
        self, dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *answer: Tensor, **rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Differentiate."""
        keep = _keep(q, k, v, rest)
        return self._load().backward(dout, q, k, v, *answer, keep=keep, **rest)


def _keep(q: Tensor, k: Tensor, v: Tensor, rest: dict[str, Any]) -> Tensor | None:
    from pinproof_cell.candidates.triton_reference import drawn

    return drawn(Call(q=q, k=k, v=v, **rest))


def unchanged() -> Attention:
    """Return our kernels as they are: what their mutants are active against."""
    return Reference(lambda: importlib.import_module("pinproof_cell.kernels.reference"))


def _maker(edit: Edit) -> Callable[[], Attention]:
    return lambda: Reference(lambda: _load(edit))


MUTANTS = (
    *(
        Mutant(
            id=f"source-{edit.id}",
            family="source",
            bug=edit.bug,
            stands_for=edit.stands_for,
            make=_maker(edit),
            against=SOURCE,
            needs=frozenset(edit.needs.split()),
        )
        for edit in EDITS
    ),
    Mutant(
        id="source-unchanged",
        family="control",
        stands_for="our kernels as they are",
        make=unchanged,
        control=True,
        against=SOURCE,
    ),
)
