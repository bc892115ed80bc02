"""Deliberately broken attention kernels: the measure of how sharp the suite is.

Each mutant is an honest emulation of a correct kernel with one step broken the way that a real
kernel was broken, or our own Triton kernel with one edit of its source. A suite that lets one of
them through would let the real bug through. Controls are unusual but correct kernels, which the
suite must let through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

#: The kernels that mutants are made from: the emulation, the same in three splits, and our own
#: Triton kernel, which the interpreter runs and so only on a few cases.
HONEST, SPLITS, SOURCE = "honest", "splits", "source"

Attention = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One broken kernel, or with ``control`` an unusual and correct one.

    ``make`` returns the callable anew, for one that keeps state; ``bug`` is the entry of the
    catalogue that it stands for, "" where it stands for a class of errors. ``against`` names the
    honest kernel that it was made from: where it answers otherwise, it is active.
    """

    id: str
    family: str
    stands_for: str
    make: Callable[[], Attention]
    bug: str = ""
    control: bool = False
    against: str = HONEST


def always(function: Attention) -> Callable[[], Attention]:
    """Return a maker for a callable without state."""
    return lambda: function


def everything() -> tuple[Mutant, ...]:
    """Return every mutant of ours and then the controls."""
    from pinproof_cell.mutants import (
        chance,
        contract,
        controls,
        layout,
        logsumexp,
        masks,
        numerics,
        source,
        splits,
    )

    families = (masks, layout, splits, numerics, logsumexp, chance, contract, source, controls)
    return tuple(mutant for family in families for mutant in family.MUTANTS)
