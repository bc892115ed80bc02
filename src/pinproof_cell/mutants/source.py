"""Mutants of our own Triton kernel: its source with one edit, run in Triton's interpreter."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from pinproof_cell.candidates.provider import module
from pinproof_cell.mutants import SOURCE, Attention, Mutant

KERNEL = Path(__file__).parents[1] / "kernels" / "forward.py"

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
    """Replace the text ``old``, which stands in the kernel exactly once, by ``new``."""

    id: str
    bug: str
    stands_for: str
    old: str
    new: str


EDITS = (
    Edit(
        "causal-below",
        "B12",
        "`<` for `<=` at the right limit",
        "keys[None, :] <= rows[:, None] + right",
        "keys[None, :] < rows[:, None] + right",
    ),
    Edit(
        "window-above",
        "B17",
        "`>` for `>=` at the left limit",
        "keys[None, :] >= rows[:, None] - left",
        "keys[None, :] > rows[:, None] - left",
    ),
    Edit(
        "key-beyond-end",
        "B22",
        "`<=` for `<` at the last key",
        "seen = (keys < seqlen_k)[None, :]",
        "seen = (keys <= seqlen_k)[None, :]",
    ),
    Edit(
        "mask-dropped",
        "B20",
        "the mask is not applied",
        'scores = tl.where(seen, scores, float("-inf"))',
        "scores = tl.where(seen, scores, scores)",
    ),
    Edit(
        "top-left",
        "B12",
        "rows are not moved to the corner",
        "rows = queries + (seqlen_k - seqlen_q)",
        "rows = queries + 0",
    ),
    Edit(
        "whole-to-last-row",
        "B20",
        "the diagonal's tile counts as whole",
        "tl.minimum(seqlen_k, first + right + 1)",
        "tl.minimum(seqlen_k, last + right + 1)",
    ),
    Edit(
        "window-edge-whole",
        "B17",
        "the left edge's tile counts as whole",
        "whole_begin = tl.cdiv(tl.maximum(last - left, 0), BLOCK_N) * BLOCK_N",
        "whole_begin = (tl.maximum(first - left, 0) // BLOCK_N) * BLOCK_N",
    ),
    Edit(
        "window-edge-skipped",
        "B17",
        "the left edge's tile is skipped",
        "begin = (tl.maximum(first - left, 0) // BLOCK_N) * BLOCK_N",
        "begin = tl.cdiv(tl.maximum(first - left, 0), BLOCK_N) * BLOCK_N",
    ),
    Edit(
        "end-short",
        "B30",
        "the last key of the last row is not visited",
        "tl.minimum(end, last + right + 1)",
        "tl.minimum(end, last + right)",
    ),
    Edit(
        "output-not-rescaled",
        "B01",
        "dropped rescale of the output",
        "accumulator = accumulator * shrink[:, None]",
        "accumulator = accumulator * 1.0",
    ),
    Edit(
        "sum-not-rescaled",
        "B01",
        "dropped rescale of the sum",
        "total = total * shrink + tl.sum(p, 1)",
        "total = total + tl.sum(p, 1)",
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
        "tl.store(Lse + (b * heads + h) * seqlen_q + wide",
        "tl.store(Lse + (b * heads) * seqlen_q + wide",
    ),
    Edit(
        "key-head-modulo",
        "B51",
        "h mod n for h // group",
        "h_k = (head // group)",
        "h_k = (head % (heads // group))",
    ),
    Edit(
        "softcap-sign",
        "B56",
        "the sign of a capped score is lost",
        "tl.where(x < 0, -softcap, softcap)",
        "tl.where(x < 0, softcap, softcap)",
    ),
    Edit(
        "alibi-signed",
        "B54",
        "no absolute value of the distance",
        "tl.abs(rows[:, None] - keys[None, :])",
        "(rows[:, None] - keys[None, :])",
    ),
    Edit(
        "jump-in-32-bits",
        "B63",
        "dropped int64",
        "jump = tl.cast(start, tl.int64)",
        "jump = tl.cast(start, tl.int32)",
    ),
)


def edited(edit: Edit) -> str:
    """Return the kernel's source with one edit. Raises ValueError where its text moved on."""
    text = KERNEL.read_text(encoding="utf-8")
    if text.count(edit.old) != 1:
        raise ValueError(
            f"{edit.id}: {edit.old!r} stands {text.count(edit.old)} times in kernel.py"
        )
    return text.replace(edit.old, edit.new)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    # Triton reads the source of its kernels from a file, also after the import.
    return tempfile.TemporaryDirectory(prefix="pinproof-mutants-")


def _load(edit: Edit) -> ModuleType:
    name = f"kernel_{edit.id.replace('-', '_')}"
    path = Path(_folder().name) / f"{name}.py"
    path.write_text(edited(edit), encoding="utf-8")
    return module(path)


def _make(edit: Edit) -> Callable[[], Attention]:
    def make() -> Attention:
        from pinproof_cell.kernels import reference

        broken, names = _load(edit), vars(reference)

        def attend(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> tuple[Tensor, Tensor]:
            ours = names["kernel"]
            names["kernel"] = broken
            try:
                return reference.attention(q, k, v, **rest)
            finally:
                names["kernel"] = ours

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
