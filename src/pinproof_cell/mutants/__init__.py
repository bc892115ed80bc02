"""Deliberately broken attention kernels: the measure of how sharp the suite is.

Each mutant is an honest emulation of a correct kernel with one step broken the way that a real
kernel was broken, or our own Triton kernel with one edit of its source. A suite that lets one of
them through would let the real bug through. Controls are unusual but correct kernels, which the
suite must let through.
"""

from __future__ import annotations

from pinproof_cell.mutants.mutant import Attention, Mutant

__all__ = ["Attention", "Mutant", "everything"]


def everything() -> tuple[Mutant, ...]:
    """Return every mutant of ours and then the controls."""
    from pinproof_cell.mutants import (
        caching,
        chance,
        contract,
        controls,
        dropout,
        gradients,
        heads,
        logsumexp,
        masks,
        numerics,
        paging,
        ragged,
        sinks,
        source,
        splits,
        strides,
        together,
    )

    families = (
        masks,
        heads,
        strides,
        ragged,
        paging,
        splits,
        numerics,
        logsumexp,
        sinks,
        dropout,
        together,
        gradients,
        chance,
        caching,
        contract,
        source,
        controls,
    )
    return tuple(mutant for family in families for mutant in family.MUTANTS)
