"""What a call asks for beyond its tensors, and the words in which a candidate says no."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pinproof_cell.candidates.bias import has_empty_rows

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call
    from pinproof_cell.candidates import Candidate

TYPES = {"torch.float16": "fp16", "torch.bfloat16": "bf16", "torch.float32": "fp32"}


def asked(call: Call) -> frozenset[str]:
    """Return the features of `pinproof_cell.suite.cases.FEATURES` that a call shows by itself."""
    q, k, v, layout = call.q, call.k, call.v, call.layout
    page = 0 if layout is None or layout.block_table is None else k.shape[1]
    # How long ragged sequences are only the device knows.
    dense, queries, keys = layout is None, q.shape[-3], k.shape[-3]
    found = {
        TYPES.get(str(q.dtype), str(q.dtype)): True,
        "window": call.window_size != (-1, -1),
        "softcap": call.softcap > 0,
        "alibi": call.alibi_slopes is not None,
        "sinks": call.sinks is not None,
        "dropout": call.dropout > 0,
        "splits": call.splits > 0,
        "gqa": q.shape[-2] != k.shape[-2],
        "value-head": q.shape[-1] != v.shape[-1],
        "unaligned-head": q.shape[-1] % 8 > 0 or v.shape[-1] % 8 > 0,
        "wide-head": max(q.shape[-1], v.shape[-1]) > 128,
        "empty-rows": dense and keys > 0 and has_empty_rows(call),
        "one-key": dense and keys == 1,
        "no-keys": dense and keys == 0,
        "no-queries": dense and queries == 0,
        "varlen": layout is not None and layout.starts_k is not None,
        "paged": page > 0,
        "page-small": 0 < page < 16,
        "left-padding": layout is not None and layout.left_padding is not None,
    }
    return frozenset(name for name, used in found.items() if used)


def refuse(candidate: Candidate, call: Call) -> None:
    """Raise NotImplementedError, naming them, for features of the call that it does not admit."""
    missing = asked(call) - candidate.supports
    if missing:
        names = ", ".join(sorted(missing))
        raise NotImplementedError(f"{candidate.name} does not take {names}")


def wants_pages(candidate: Candidate, call: Call, multiple: int) -> None:
    """Raise NotImplementedError where pages are not of a multiple of `multiple` rows."""
    if call.layout is not None and call.layout.block_table is not None:
        page = call.k.shape[1]
        if page % multiple:
            raise NotImplementedError(
                f"{candidate.name} wants pages of a multiple of {multiple} rows, not {page}"
            )


def bfloat16_sinks(candidate: Candidate, call: Call) -> Tensor | None:
    """Return the sinks in bfloat16, or None; raises NotImplementedError where that rounds them."""
    if call.sinks is None:
        return None
    rounded = call.sinks.bfloat16()
    if bool((rounded != call.sinks).any()):
        raise NotImplementedError(f"{candidate.name} takes sinks in bfloat16 only")
    return rounded


@contextmanager
def asserting(candidate: Candidate) -> Iterator[None]:
    """Raise NotImplementedError where the candidate asserts that something is not supported."""
    try:
        yield
    except AssertionError as error:
        if "support" not in str(error):
            raise
        raise NotImplementedError(f"{candidate.name}: {error}") from error
