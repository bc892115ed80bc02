"""Mutants of our own Triton kernels: their source with one edit, run in Triton's interpreter."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from pinproof_cell.mutants import SOURCE, Attention, Mutant

KERNELS = Path(__file__).parents[1] / "kernels"

#: The interpreter is slow: these cases reach every line that is edited, and keep it short.
CASES = frozenset(
    {
        "113x203-d64-h4k2-causal-bf16-peaked",
        "97x160-d128-window31.7-fp16-diffuse",
        "200x200-d64-h4k2-causal-window33.0-bf16-diffuse",
        "128x217-d64-causal-softcap15-fp16-peaked",
        "108x256-d40-h4k2-alibi-bf16-diffuse",
        "64x1100-d64-bf16-peaked",
        "257x257-d111-causal-bf16-diffuse",
        "130x2-d64-causal-fp16-peaked",
    }
)


@dataclass(frozen=True)
class Edit:
    """Replace the text ``old``, which stands in the ``file`` of the kernels exactly once."""

    id: str
    bug: str
    stands_for: str
    old: str
    new: str
    file: str = "forward.py"


EDITS = (
    Edit(
        "causal-below",
        "B12",
        "`<` for `<=` at the right limit",
        "keys <= rows + right",
        "keys < rows + right",
        file="scores.py",
    ),
    Edit(
        "window-above",
        "B17",
        "`>` for `>=` at the left limit",
        "keys >= rows - left",
        "keys > rows - left",
        file="scores.py",
    ),
    Edit(
        "key-beyond-end",
        "B22",
        "`<=` for `<` at the last key",
        "keys[None, :], inside[None, :], left, right)",
        "keys[None, :], (keys <= high)[None, :], left, right)",
    ),
    Edit(
        "mask-dropped",
        "B20",
        "the mask is not applied",
        'scores = tl.where(pairs, scores, float("-inf"))',
        "scores = tl.where(pairs, scores, scores)",
    ),
    Edit(
        "top-left",
        "B12",
        "rows are not moved to the corner",
        "rows = queries + shift",
        "rows = queries + 0",
    ),
    Edit(
        "whole-to-last-row",
        "B20",
        "the diagonal's tile counts as whole",
        "span(last, first,",
        "span(last, last,",
    ),
    Edit(
        "window-edge-whole",
        "B17",
        "the left edge's tile counts as whole",
        "span(last, first,",
        "span(first, first,",
    ),
    Edit(
        "window-edge-skipped",
        "B17",
        "the left edge's tile is skipped",
        "begin = (low // BLOCK_N) * BLOCK_N",
        "begin = tl.cdiv(low, BLOCK_N) * BLOCK_N",
    ),
    Edit(
        "end-short",
        "B30",
        "the last key of the last row is not visited",
        "tl.minimum(end, last + after + 1)",
        "tl.minimum(end, last + after)",
        file="scores.py",
    ),
    Edit(
        "output-not-rescaled",
        "B01",
        "dropped rescale of the output",
        "return accumulator * shrink[:, None]",
        "return accumulator * 1.0",
    ),
    Edit(
        "sum-not-rescaled",
        "B01",
        "dropped rescale of the sum",
        "total = total * shrink + tl.sum(weights, 1)",
        "total = total + tl.sum(weights, 1)",
    ),
    Edit(
        "unguarded-tile",
        "B34",
        "(-inf) - (-inf) in a tile that hides all",
        'anchor = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)',
        "anchor = new_maximum",
    ),
    Edit(
        "unguarded-row",
        "B28",
        "a row without keys divides by zero",
        "total = tl.where(empty, 1.0, total)",
        "total = tl.where(empty, 0.0, total)",
    ),
    Edit(
        "lse-in-base-2",
        "B06",
        "dropped scale of the LSE",
        "maximum * LN2 + tl.log(total)",
        "maximum + tl.log(total)",
    ),
    Edit(
        "lse-without-maximum",
        "B06",
        "dropped maximum in the LSE",
        "maximum * LN2 + tl.log(total)",
        "tl.log(total)",
    ),
    Edit(
        "lse-of-one-head",
        "B26",
        "the LSE's head stride is lost",
        "at(lse, b, own, h, 0)",
        "at(lse, b, own, 0, 0)",
    ),
    Edit(
        "key-head-modulo",
        "B51",
        "h mod n for h // group",
        "h_k = column * members // group",
        "h_k = column * members % (heads // group)",
    ),
    Edit(
        "softcap-sign",
        "B56",
        "the sign of a capped score is lost",
        "tl.where(x < 0, -scoring.softcap, scoring.softcap)",
        "tl.where(x < 0, scoring.softcap, scoring.softcap)",
        file="scores.py",
    ),
    Edit(
        "alibi-signed",
        "B54",
        "no absolute value of the distance",
        "tl.abs(rows - keys)",
        "(rows - keys)",
        file="scores.py",
    ),
    Edit(
        "jump-in-32-bits",
        "B63",
        "dropped int64",
        "offset = tl.cast(start, tl.int64) * x.row",
        "offset = tl.cast(start, tl.int32) * x.row",
        file="memory.py",
    ),
)


def edited(edit: Edit) -> str:
    """Return the file's source with one edit. Raises ValueError where its text moved on."""
    text = (KERNELS / edit.file).read_text(encoding="utf-8")
    if text.count(edit.old) != 1:
        raise ValueError(
            f"{edit.id}: {edit.old!r} stands {text.count(edit.old)} times in {edit.file}"
        )
    return text.replace(edit.old, edit.new)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    # Triton reads the source of its kernels from a file, also after the import.
    folder = tempfile.TemporaryDirectory(prefix="pinproof-mutants-")
    sys.path.append(folder.name)
    return folder


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


def _make(edit: Edit) -> Callable[[], Attention]:
    def make() -> Attention:
        attend: Attention = _load(edit).attention
        return attend

    return make


def unchanged() -> Attention:
    """Return our kernel as it is: what its mutants are active against."""
    from pinproof_cell.kernels import reference

    return reference.attention


MUTANTS = (
    *(
        Mutant(
            id=f"source-{edit.id}",
            family="source",
            bug=edit.bug,
            stands_for=edit.stands_for,
            make=_make(edit),
            against=SOURCE,
        )
        for edit in EDITS
    ),
    Mutant(
        id="source-unchanged",
        family="control",
        stands_for="our kernel as it is",
        make=unchanged,
        control=True,
        against=SOURCE,
    ),
)
