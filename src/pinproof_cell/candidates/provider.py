"""A user's own kernel as a candidate: a callable in a Python file, named ``FILE.py:NAME``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pinproof_cell.candidates import LOW_PRECISION, LSE_MINUS_INF
from pinproof_cell.suite.cases import FEATURES

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call

TYPES = LOW_PRECISION | {"fp32"}


@dataclass(frozen=True)
class Provider:
    """A callable ``f(q, k, v, *, softmax_scale, causal, window_size, softcap, alibi_slopes)``.

    Its optional attributes ``supports`` (a set of feature names) and ``lse_on_empty_rows`` say
    what it admits; without them it admits everything and writes -inf. A set without any type
    admits them all.
    """

    name: str
    function: Callable[..., tuple[Tensor, Tensor]]
    origin: str = "provider"
    version: str | None = None

    @property
    def supports(self) -> frozenset[str]:
        """The features that the callable admits."""
        named = frozenset(getattr(self.function, "supports", FEATURES))
        return named if named & TYPES else named | TYPES

    @property
    def lse_on_empty_rows(self) -> float:
        """What the callable writes for a row without keys."""
        return float(getattr(self.function, "lse_on_empty_rows", LSE_MINUS_INF))

    def available(self) -> str | None:
        """Return None: the file was imported to make this."""
        return None

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend with the callable."""
        return self.function(call.q, call.k, call.v, **call.keywords())


def load(name: str) -> Provider:
    """Import ``FILE.py:NAME``. Raises ValueError where there is no such file or callable."""
    file, _, attribute = name.rpartition(":")
    function = getattr(module(Path(file)), attribute, None)
    if not callable(function):
        raise ValueError(f"{file!r} has no callable {attribute!r}")
    return Provider(name, function)


def module(path: Path) -> ModuleType:
    """Import the Python file at `path`. Raises ValueError where there is none."""
    if not path.is_file():
        raise ValueError(f"no file {str(path)!r}")
    name = f"pinproof_provider_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is not a Python file")
    found = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up, and a file may import its neighbours.
    sys.modules[name] = found
    sys.path.append(str(path.resolve().parent))
    spec.loader.exec_module(found)
    return found
