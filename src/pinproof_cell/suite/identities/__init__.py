"""Identities: what must hold between answers of one kernel, whatever the right numbers are.

They are the strongest checks of masks, pages and strides. Each is one function in a module of this
package, whose docstring says what must hold, how exactly, and why. `catalogue` names them all. This
module and that one import no torch, so that the supervisor can.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinproof_cell.suite.cases import Case, concerned

if TYPE_CHECKING:
    from pinproof_cell.judge.forward import Judgement
    from pinproof_cell.suite.identities.compare import Bench


@dataclass(frozen=True)
class Identity:
    """An identity on a case: ``function`` is its place in this package, as ``values.one_key``.

    ``argument`` is the argument of attention that the function is about, where it is about one.
    ``needs`` are features that it asks for beyond those of the case; ``rare`` keeps it out of what
    servers and training do.
    """

    name: str
    function: str
    case: Case
    argument: str = ""
    needs: frozenset[str] = frozenset()
    rare: bool = False

    @property
    def id(self) -> str:
        """Name and case: P0-zero-logits@113x203-d64-h4k2-causal-bf16-diffuse."""
        return f"{self.name}@{self.case.id}"

    @property
    def features(self) -> frozenset[str]:
        """Those of the case, and what the identity asks for beyond them."""
        return self.case.features | self.needs

    @property
    def uses(self) -> tuple[str, ...]:
        """The uses that call a kernel with these features."""
        return ("everything",) if self.rare else concerned(self.features, self.case.looks_ahead)

    def judge(self, bench: Bench) -> Iterator[Judgement]:
        """Put the calls of the identity and compare their answers. Raises CallError."""
        module, _, name = self.function.partition(".")
        function: Callable[..., Iterator[Judgement]] = getattr(
            importlib.import_module(f"{__name__}.{module}"), name
        )
        return function(bench, self.argument) if self.argument else function(bench)
