"""An error for want of memory is told from an error of a kernel."""

from __future__ import annotations

import pytest
import torch

from pinproof_cell.world import memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("Triton Error [CUDA]: Out of Memory"),
    ],
)
def test_every_way_to_say_that_memory_is_full_is_understood(error: Exception) -> None:
    assert memory.is_full(error)


def test_torch_really_says_so_where_more_is_asked_than_any_machine_has() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**56)
    assert memory.is_full(raised.value)


def test_an_access_out_of_bounds_is_no_want_of_memory() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert not memory.is_full(error)
