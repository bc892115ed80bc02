"""What a mutant is, and how a family of them is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pinproof_cell.mutants.emulation import HONEST, Kernel, changed

Attention = Callable[..., tuple[Tensor, Tensor]]

#: The honest kernel that most mutants are made from.
EMULATION = "emulation"


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One broken kernel, or with ``control`` an unusual and correct one.

    ``make`` returns the callable anew, for one that keeps state; ``bug`` is the entry of the
    catalogue that it stands for, "" where it stands for a class of errors. ``against`` names the
    honest kernel that it was made from: where it answers otherwise, it is active. Only checks
    with all the features of ``needs`` can tell it from that one; one that is ``unsteady`` answers
    otherwise from call to call.
    """

    id: str
    family: str
    stands_for: str
    make: Callable[[], Attention]
    bug: str = ""
    control: bool = False
    against: str = EMULATION
    needs: frozenset[str] = frozenset()
    unsteady: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """Mutants of one kind; called with what tells them apart, it returns one."""

    name: str
    base: Kernel = HONEST
    against: str = EMULATION
    needs: tuple[str, ...] = ()
    control: bool = False
    unsteady: bool = False

    def __call__(
        self,
        id: str,  # noqa: A002
        bug: str,
        stands_for: str,
        *,
        make: Callable[[], Attention] | None = None,
        function: Attention | None = None,
        needs: tuple[str, ...] = (),
        **steps: Any,
    ) -> Mutant:
        """Return a mutant: by its maker, a function without state, or steps of the base kernel."""
        kernel = changed(self.base, **steps) if function is None else function
        return Mutant(
            id=id,
            family=self.name,
            bug=bug,
            stands_for=stands_for,
            make=make or (lambda: kernel),
            control=self.control,
            against=self.against,
            needs=frozenset((*self.needs, *needs)),
            unsteady=self.unsteady,
        )
