"""Cases drawn at random over all that the reference takes, each small enough to be interpreted."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from pinproof_cell.call import Call
from pinproof_cell.suite.cases import LAYOUTS, Case

#: On either side of the edge of an interpreter's tile, and of a page's.
LENGTHS = (0, 1, 5, 16, 100, 127, 128, 129, 200)


@st.composite
def cases(draw: st.DrawFn, *, backward: bool = False) -> Case:
    """Draw a case in float32, so that what differs from the oracle is no rounding."""
    kinds = ("dense", "varlen") if backward else LAYOUTS
    layout = draw(st.sampled_from(kinds))
    pairs = st.tuples(st.sampled_from(LENGTHS), st.sampled_from(LENGTHS))
    lengths = tuple(draw(st.lists(pairs, min_size=1, max_size=3)))
    heads, heads_k = draw(st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3), (6, 2)]))
    some = st.sampled_from((-1, -1, -1, 0, 7, 130))
    return Case(
        *lengths[0],
        draw(st.sampled_from((8, 16, 24, 40))),
        heads,
        heads_k,
        causal=draw(st.booleans()),
        window=(draw(some), draw(some)),
        softcap=draw(st.sampled_from((0.0, 0.0, 3.0))),
        alibi=draw(st.booleans()),
        scale=draw(st.sampled_from((None, 0.4))),
        dtype="fp32",
        head_dim_v=draw(st.sampled_from((0, 8, 33))),
        batch=2,
        lengths=() if layout == "dense" else lengths,
        layout=layout,
        page=draw(st.sampled_from((1, 5, 16))) if layout == "paged" else 0,
        splits=0 if backward else draw(st.sampled_from((0, 0, 1, 2, 3))),
        sinks=draw(st.booleans()),
        dropout=draw(st.sampled_from((0.0, 0.0, 0.3))),
        backward=backward,
    )


def keep_for(call: Call) -> torch.Tensor | None:
    """Draw the mask of a call's dropout."""
    if not call.dropout:
        return None
    shape = (call.q.shape[0], call.q.shape[2], call.q.shape[1], call.k.shape[1])
    if call.layout is not None:
        shape = (1, call.q.shape[1], call.q.shape[0], call.layout.max_k)
    source = torch.Generator().manual_seed(3)
    return (torch.rand(shape, generator=source) >= call.dropout).to(call.q.device)
