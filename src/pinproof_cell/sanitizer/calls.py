"""The calls that are made under a sanitizer: few and small, for each takes seconds there.

Together they reach every way through a kernel that the suite knows: edges of tiles, the last page,
empty sequences, gradients. Nothing is compared; imports no torch.
"""

from __future__ import annotations

from pinproof_cell.suite.cases import Case

CALLS = (
    Case(113, 203, heads=4, causal=True, batch=1),
    Case(65, 130, 128, heads=4, causal=True, window=(63, 0), dtype="fp16", batch=1),
    Case(1, 339, 128, heads=8, batch=1),
    Case(
        *(130, 130),
        heads=4,
        causal=True,
        layout="varlen",
        lengths=((65, 65), (0, 17), (130, 130), (3, 70)),
    ),
    Case(
        *(33, 150),
        heads=4,
        causal=True,
        layout="paged",
        page=16,
        lengths=((1, 150), (33, 100), (5, 5)),
    ),
    Case(1, 300, heads=8, layout="paged", page=256, lengths=((1, 300), (1, 256))),
    Case(1, 150, heads=8, sinks=True, layout="paged", page=16, lengths=((1, 150), (1, 31))),
    Case(113, 130, heads=4, causal=True, backward=True, batch=1),
    # Some kernels have as many heads of keys as of queries, and no others.
    Case(65, 130, causal=True, backward=True, dtype="fp16", batch=1),
    Case(
        *(65, 65),
        heads=4,
        causal=True,
        backward=True,
        layout="varlen",
        lengths=((65, 65), (0, 0), (33, 33)),
    ),
)


def by_id(name: str) -> Case:
    """Return the call with that id. Raises KeyError where there is none."""
    return {case.id: case for case in CALLS}[name]
