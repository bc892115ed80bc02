"""One launch of a kernel as a value: so that it can be compiled where it cannot run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import triton

from pinproof_cell.kernels.tiles import Tiles

#: True where Triton interprets its kernels with numpy instead of compiling them for a GPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that kernels call: compiled into them.

    Interpreted it stays as it is, for it runs within its kernel, and each call of a function of
    Triton's own would cost the interpreter as much as a tile.
    """
    return function if INTERPRETED else triton.jit(function)


@dataclass(frozen=True)
class Launch:
    """`programs` programs of a kernel, with all of its arguments by name."""

    kernel: Any
    programs: int
    arguments: Mapping[str, Any]
    tiles: Tiles

    def run(self) -> None:
        """Launch it on the device of its tensors; returns before it has ended."""
        self.kernel[(self.programs,)](**self.arguments, **self.options)

    @property
    def options(self) -> dict[str, int]:
        """The options of Triton's compiler."""
        return {"num_warps": self.tiles.warps, "num_stages": self.tiles.stages}
