"""Memory full of NaN bits: what a kernel forgets to write looks right in fresh memory, not here.

All bits set are a NaN in bfloat16, float16, float32 and float64.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MIB = 1 << 20

_EMPTY = re.compile(r"(?:new_)?empty")


def block(nbytes: int, device: str | torch.device) -> Tensor:
    """Return new memory of `nbytes` bytes, all bits set."""
    return torch.full((nbytes,), 0xFF, dtype=torch.uint8, device=device)


class Poisoned(TorchDispatchMode):
    """Within, torch hands out memory full of NaN bits, and hands it out once.

    Each tensor that an operator returns is kept alive, so nothing else can have written to its
    memory before. What ``torch.empty`` and its like return is filled at once; on a GPU all that
    torch's caching allocator has free is filled first, for tensors that operators make inside. One
    use each.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device
        self._kept: list[Tensor] = []
        self._fresh: list[range] = []
        self._free: list[range] = []

    def __enter__(self) -> Poisoned:
        """Fill what is free."""
        if self._device == "cuda":
            self._free = list(_merged(_fill_free()))
            torch.cuda.memory._record_memory_history("all", context=None)
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an operator, fill what is empty, and keep what it returns."""
        found = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
        if _EMPTY.match(func.__name__):
            for x in made:
                storage = x.untyped_storage()
                torch.empty(0, dtype=torch.uint8, device=x.device).set_(storage).fill_(0xFF)
                self._fresh.append(_place(x))
        self._kept += made
        return found

    def held(self, tensor: Tensor) -> bool:
        """Say if the memory of `tensor` surely was full of NaN bits when it was handed out."""
        place = _place(tensor)
        if any(_within(place, fresh) for fresh in self._fresh):
            return True
        taken = sum(_overlap(place, other) for other in self._taken())
        return taken == 1 and any(_within(place, free) for free in self._free)

    def _taken(self) -> Iterator[range]:
        """Yield what the caching allocator handed out since, whether or not it was freed."""
        if self._device == "cuda":
            for trace in torch.cuda.memory._snapshot()["device_traces"]:
                for event in trace:
                    if event["action"] == "alloc":
                        yield range(event["addr"], event["addr"] + event["size"])


def _fill_free() -> Iterator[range]:
    """Fill free memory of the caching allocator, and some more, with NaN bits; yield where it is.

    It keeps pieces of up to 1 MiB apart from larger ones.
    """
    more = [block(size * MIB, "cuda") for size in (64, *([1] * 16))]
    more.clear()
    sizes = []
    for segment in torch.cuda.memory_snapshot():
        most = MIB if segment["segment_type"] == "small" else segment["total_size"]
        for part in segment["blocks"]:
            if part["state"] == "inactive":
                whole, rest = divmod(part["size"], most)
                sizes += [most] * whole + [rest] * (rest > 0)
    # The allocator takes the smallest that is large enough: the largest first.
    filled = [block(size, "cuda") for size in sorted(sizes, reverse=True)]
    torch.cuda.synchronize()
    yield from map(_place, filled)


def _place(tensor: Tensor) -> range:
    storage = tensor.untyped_storage()
    return range(storage.data_ptr(), storage.data_ptr() + storage.nbytes())


def _merged(places: Iterator[range]) -> Iterator[range]:
    """Yield the ranges with those joined that touch."""
    last: range | None = None
    for place in sorted(places, key=lambda each: each.start):
        if last is not None and place.start == last.stop:
            last = range(last.start, place.stop)
            continue
        if last is not None:
            yield last
        last = place
    if last is not None:
        yield last


def _within(place: range, whole: range) -> bool:
    return whole.start <= place.start and place.stop <= whole.stop


def _overlap(place: range, other: range) -> bool:
    return place.start < other.stop and other.start < place.stop
