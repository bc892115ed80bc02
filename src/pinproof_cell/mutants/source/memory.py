"""Edits of offsets, sequences and pages."""

from __future__ import annotations

from functools import partial

from pinproof_cell.mutants.source.edit import Edit

_edit = partial(Edit, "memory.py")

EDITS = (
    _edit(
        "jump-in-32-bits",
        "B63",
        "dropped int64",
        "offset = tl.cast(start, tl.int64) * x.row",
        "offset = tl.cast(start, tl.int32) * x.row",
    ),
    _edit(
        "offset-in-32-bits",
        "B63",
        "the batch's offset in 32 bits",
        "+ tl.cast(b, tl.int64) * x.batch",
        "+ tl.cast(tl.cast(b, tl.int64) * x.batch, tl.int32)",
        "far",
    ),
    _edit(
        "column-beyond-head",
        "B50",
        "`<=` for `<` at the last column",
        "tile = tl.load(pointers, mask=inside & (columns < HEAD), other=0.0)",
        "tile = tl.load(pointers, mask=inside & (columns <= HEAD), other=0.0)",
    ),
    _edit(
        "queries-one-less",
        "B40",
        "one query too few in each sequence",
        "seqlen_q = tl.load(batch.starts_q + b + 1) - first_q",
        "seqlen_q = tl.load(batch.starts_q + b + 1) - first_q - 1",
        "ragged",
    ),
    _edit(
        "keys-of-first",
        "B40",
        "the keys of sequence 0 for all",
        "seqlen_k = tl.load(batch.lengths_k + b)",
        "seqlen_k = tl.load(batch.lengths_k)",
        "ragged",
    ),
    _edit(
        "keys-from-queries",
        "B40",
        "keys begin where queries do",
        "first_k = tl.load(batch.starts_k + b)",
        "first_k = tl.load(batch.starts_q + b)",
        "varlen",
    ),
    _edit(
        "table-of-first",
        "B39",
        "the table's row of sequence 0",
        "entries = batch.table + b * batch.most + keys // batch.page",
        "entries = batch.table + keys // batch.page",
        "paged",
    ),
    _edit(
        "table-rows-overlap",
        "B39",
        "the table's rows are one entry apart",
        "entries = batch.table + b * batch.most",
        "entries = batch.table + b",
        "paged",
    ),
    _edit(
        "page-row-of-tile",
        "B38",
        "rows counted from the tile",
        "row = (keys % batch.page).to(tl.int64)",
        "row = (keys % 8).to(tl.int64)",
        "paged",
    ),
    _edit(
        "page-by-rows",
        "B37",
        "pages a row apart",
        "tl.expand_dims(page * x.batch + row * x.row, AXIS)",
        "tl.expand_dims(page * x.row + row * x.row, AXIS)",
        "paged",
    ),
    _edit(
        "key-head-lost",
        "B51",
        "head 0 of every page",
        "pointers = at(x, 0, 0, h, columns)",
        "pointers = at(x, 0, 0, 0, columns)",
        "paged",
    ),
)
