"""Edits of masks, softcap and ALiBi, which both passes share."""

from __future__ import annotations

from functools import partial

from pinproof_cell.mutants.source.edit import Edit

_edit = partial(Edit, "scores.py")

EDITS = (
    _edit(
        "causal-below",
        "B12",
        "`<` for `<=` at the right limit",
        "keys <= rows + right",
        "keys < rows + right",
    ),
    _edit(
        "window-above",
        "B17",
        "`>` for `>=` at the left limit",
        "keys >= rows - left",
        "keys > rows - left",
        "window",
    ),
    _edit(
        "end-short",
        "B30",
        "the last key of the last row is not visited",
        "tl.minimum(end, last + after + 1)",
        "tl.minimum(end, last + after)",
    ),
    _edit(
        "softcap-sign",
        "B56",
        "the sign of a capped score is lost",
        "tl.where(x < 0, -scoring.softcap, scoring.softcap)",
        "tl.where(x < 0, scoring.softcap, scoring.softcap)",
        "softcap",
    ),
    _edit(
        "alibi-signed",
        "B54",
        "no absolute value of the distance",
        "tl.abs(rows - keys)",
        "(rows - keys)",
        "alibi",
    ),
    _edit(
        "softcap-tanh",
        "B56",
        "exp(-x) for exp(-2x)",
        "e = tl.exp(-2.0 * tl.abs(x))",
        "e = tl.exp(-1.0 * tl.abs(x))",
        "softcap",
    ),
    _edit(
        "softcap-derivative",
        "B56",
        "1 - tanh for 1 - tanh^2",
        "bend = 4.0 * e / ((1.0 + e) * (1.0 + e))",
        "bend = 2.0 * e / (1.0 + e)",
        "softcap backward",
    ),
    _edit(
        "scale-before-alibi",
        "B54",
        "ALiBi on scores without their scale",
        "elif slope is not None:\n        scores = products * scoring.scale",
        "elif slope is not None:\n        scores = products * 1.0",
        "alibi",
    ),
    _edit(
        "window-begin-late",
        "B17",
        "one key less at a tile's left edge",
        "begin = tl.minimum(tl.maximum(first - before, 0), end)",
        "begin = tl.minimum(tl.maximum(first - before + 1, 0), end)",
        "window",
    ),
)
