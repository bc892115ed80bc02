"""Memory full of NaN bits: what nobody writes shows, and what is not sure is not claimed."""

from __future__ import annotations

import pytest
import torch

from pinproof_cell.suite import poison
from pinproof_cell.suite.poison import Poisoned

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_all_bits_set_are_a_nan_in_every_type_of_an_answer(dtype: torch.dtype) -> None:
    assert poison.block(64, "cpu").view(dtype).isnan().all()


def test_what_is_made_empty_within_is_full_of_nan_and_known_to_be() -> None:
    with Poisoned("cpu") as memory:
        rows = torch.empty(3, 5, dtype=torch.bfloat16)
        turned = torch.empty_strided((4, 6), (1, 4)).t()
        written = torch.empty_like(rows).fill_(1)
        unknown = rows + rows
    assert rows.isnan().all()
    assert turned.isnan().all()
    assert not written.isnan().any()
    assert [memory.held(x) for x in (rows, turned, written, unknown)] == [True, True, True, False]


def test_memory_from_outside_is_not_taken_for_poisoned() -> None:
    before = torch.empty(100)
    with Poisoned("cpu") as memory:
        pass
    assert not memory.held(before)


def test_ranges_that_touch_are_one() -> None:
    assert list(poison._merged(iter([range(8, 9), range(4, 8), range(3)]))) == [
        range(3),
        range(4, 9),
    ]


@needs_gpu
def test_on_a_gpu_what_operators_make_inside_comes_from_poisoned_memory() -> None:
    q = torch.randn(1, 4, 113, 64, device="cuda", dtype=torch.bfloat16)
    with Poisoned("cuda") as memory:
        out = torch.ops.aten._scaled_dot_product_flash_attention(q, q, q)[0]
        fresh = torch.empty(1000, device="cuda")
    torch.cuda.synchronize()
    assert memory.held(out)
    assert memory.held(fresh)
    assert not memory.held(q)
    assert fresh.isnan().all()
    assert not out.isnan().any()


@needs_gpu
def test_on_a_gpu_memory_that_was_handed_out_before_is_not_taken_for_poisoned() -> None:
    with Poisoned("cuda") as memory:
        first = torch.zeros(1000, device="cuda")
        place = first.data_ptr()
        memory._kept.clear()
        del first
        second = torch.zeros(1000, device="cuda")
    assert second.data_ptr() == place
    assert not memory.held(second)
