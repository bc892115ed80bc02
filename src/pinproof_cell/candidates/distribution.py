"""What candidates of an installed distribution share: its version, and whether it can be called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

from pinproof_cell.candidates import LSE_MINUS_INF


def version(name: str) -> str | None:
    """Return the installed version of the distribution `name`, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def failure(error: BaseException) -> str:
    """Return an exception as one line: its class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """A candidate of the distribution ``origin``; a subclass says what is `missing` to call it."""

    name: str
    origin: str
    supports: frozenset[str]
    lse_on_empty_rows: float = LSE_MINUS_INF
    needs_cuda: bool = True

    @property
    def version(self) -> str | None:
        """The version of the distribution."""
        return version(self.origin)

    def available(self) -> str | None:
        """Return why it cannot run here, or None. Imports it."""
        try:
            import torch

            reason = self.missing()
            if not reason and self.needs_cuda and not torch.cuda.is_available():
                reason = "torch sees no CUDA device"
        except Exception as error:
            return failure(error)
        return reason

    def missing(self) -> str | None:
        """Import what is called; returns, or raises, what is wrong with it."""
        raise NotImplementedError
