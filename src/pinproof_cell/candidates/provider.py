"""A user's own kernel as a candidate: a callable in a Python file, named ``FILE.py:NAME``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pinproof_cell.candidates import LOW_PRECISION, LSE_MINUS_INF

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call

TYPES = LOW_PRECISION | {"fp32"}
#: What the five keywords and the shapes of the contract say. The rest has to be named: other
#: keywords, v with a head dimension of its own, a last stride that is not 1, float32.
DEFAULT = LOW_PRECISION | {
    *("causal", "causal-rectangular", "window", "softcap", "alibi", "gqa"),
    *("unaligned-head", "wide-head", "strided", "expanded"),
    *("empty-rows", "one-key", "no-keys", "no-queries"),
}


@dataclass(frozen=True)
class Provider:
    """A callable ``f(q, k, v, *, softmax_scale, causal, window_size, softcap, alibi_slopes)``.

    Its optional attributes ``supports`` (a set of feature names) and ``lse_on_empty_rows`` say
    what it admits; without them it admits `DEFAULT` and writes -inf. A set without any type admits
    fp16 and bf16. ``admits`` says it in its place. With ``backward`` it has gradients.
    """

    name: str
    function: Callable[..., tuple[Tensor, Tensor]]
    origin: str = "provider"
    version: str | None = None
    admits: frozenset[str] | None = None

    @property
    def supports(self) -> frozenset[str]:
        """The features that the callable admits."""
        named = self.admits
        if named is None:
            named = _supports(self.function)
        # Who hands out gradients says so by doing it; the log-sum-exp is part of the contract.
        named = named - {"backward"} | ({"backward"} if self._backward else set())
        return (named if named & TYPES else named | LOW_PRECISION) | {"lse"}

    @property
    def lse_on_empty_rows(self) -> float:
        """What the callable writes for a row without keys."""
        value = getattr(self.function, "lse_on_empty_rows", LSE_MINUS_INF)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"`lse_on_empty_rows` is {value!r}, not a number") from None

    def available(self) -> str | None:
        """Return None: the file was imported to make this."""
        return None

    @property
    def _backward(self) -> Callable[..., tuple[Tensor, Tensor, Tensor]] | None:
        return getattr(self.function, "backward", None)

    def forward(self, call: Call) -> tuple[Tensor, Tensor]:
        """Attend with the callable."""
        return self.function(call.q, call.k, call.v, **self._arguments(call))

    def _arguments(self, call: Call) -> dict[str, Any]:
        """Return the keywords of the call: beyond the contract only what `supports` names."""
        found = call.keywords()
        missing = {"sinks", "dropout", "splits"} & found.keys() - self.supports
        if missing:
            raise NotImplementedError(f"{self.name} does not support {', '.join(sorted(missing))}")
        return found

    def backward(
        self, dout: Tensor, call: Call, out: Tensor, lse: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of ``f.backward``. Raises NotImplementedError without one."""
        if self._backward is None:
            raise NotImplementedError(f"{self.name} has no backward")
        return self._backward(dout, call.q, call.k, call.v, out, lse, **self._arguments(call))


def _supports(function: Callable[..., object]) -> frozenset[str]:
    """Return what `function` says that it admits. Raises ValueError for no set of names."""
    said = getattr(function, "supports", DEFAULT)
    names = isinstance(said, (set, frozenset)) and all(isinstance(name, str) for name in said)
    if not names:
        raise ValueError(f"`supports` is {said!r}, not a set of names of features")
    return frozenset(said)


def load(name: str) -> Provider:
    """Import ``FILE.py:NAME``.

    Raises ValueError where there is no such file or callable, or an attribute of it is no such.
    """
    file, _, attribute = name.rpartition(":")
    function = getattr(module(Path(file)), attribute, None)
    if not callable(function):
        raise ValueError(f"{file!r} has no callable {attribute!r}")
    backward = getattr(function, "backward", None)
    if backward is not None and not callable(backward):
        raise ValueError(f"`backward` is {backward!r}, not callable")
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
