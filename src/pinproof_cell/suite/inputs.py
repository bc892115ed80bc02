"""The inputs of a case: seeded, and the same on every device."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.layout import Layout
from pinproof_cell.suite.cases import Case

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

#: Between the elements of a "far" batch, in elements: 32 bits cannot count them.
FAR = 2**31 + 64
#: Between the rows of a "far-rows" case: row 128, where a tile begins, lies 2^31 elements in.
FAR_ROW = 2**24
#: What stands where no sequence has a key: finite, since caches hold old keys and not NaN.
BEYOND = 3e4


def generate(case: Case, seed: int, device: str, *, beyond: float = BEYOND) -> Call:
    """Draw the call of `case`; each case has a stream of its own, whatever ran before it.

    `beyond` is what stands in pages and caches where no sequence has a key.
    """
    source = torch.Generator().manual_seed(seed ^ zlib.crc32(case.id.encode()))

    def normal(length: int, heads: int, dim: int) -> Tensor:
        return torch.randn(length, heads, dim, generator=source)

    queries: list[Tensor] = []
    keys: list[Tensor] = []
    values: list[Tensor] = []
    for length_q, length_k in case.sequences:
        q = normal(length_q, case.heads, case.head_dim)
        k = normal(length_k, case.heads_k, case.head_dim)
        v = normal(length_k, case.heads_k, case.dim_v)
        for parts, drawn in zip((queries, keys, values), _shaped(case, q, k, v), strict=True):
            parts.append(drawn.to(DTYPES[case.dtype]))
    arguments: dict[str, Any] = {
        "softmax_scale": case.scale,
        "causal": case.causal,
        "window_size": case.window,
        "softcap": case.softcap,
        "alibi_slopes": _slopes(case, device),
        "dropout": case.dropout,
        "splits": case.splits,
    }
    if case.sinks:
        # As models keep them, and as some kernels take them alone: what bfloat16 holds.
        sinks = torch.randn(case.heads, generator=source).bfloat16().float()
        arguments["sinks"] = sinks.to(device)
    if case.layout == "dense":
        q, k, v = (torch.stack(parts) for parts in (queries, keys, values))
        q, k, v = _remembered(case, q.to(device), k.to(device), v.to(device))
        return Call(q=q, k=k, v=v, **arguments)
    packing = _Packing(case, source, device, beyond)
    q = torch.cat(queries).to(device)
    q, k, v = _remembered(case, q, packing.place(keys), packing.place(values))
    return Call(q=q, k=k, v=v, layout=packing.layout(), **arguments)


def _shaped(case: Case, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return normal q, k and v of one sequence as the kind of the case wants their values."""
    match case.kind:
        case "peaked":
            # V says where it stands: a key taken from the wrong place shows in the output.
            place = 4 * torch.arange(k.shape[0]) / max(k.shape[0], 1)
            return 2 * q, 2 * k, v + place[:, None, None]
        case "large":
            return 6 * q, 6 * k, v
        case "outlier":
            column = torch.ones(case.head_dim)
            column[:: max(case.head_dim // 3, 1)] = 10.0
            return q * column, k * column, v
        case "shifted":
            return _towards(case, q, k, v, -120.0)
        case "edge":
            return _towards(case, q, k, v, 4e4)
        case "sunken":
            return _towards(case, q, k, v, -5.5e4)
    return q, k, v


def _towards(
    case: Case, q: Tensor, k: Tensor, v: Tensor, logit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Shift q and k along one direction, so that every scaled product lies near `logit`."""
    scale = case.head_dim**-0.5 if case.scale is None else case.scale
    size = math.sqrt(abs(logit) / scale / case.head_dim)
    return q / 8 + size, k / 8 + math.copysign(size, logit), v


def _slopes(case: Case, device: str) -> Tensor | None:
    if not case.alibi:
        return None
    # The usual geometric slopes, other ones for each element of the batch.
    batch = len(case.sequences)
    steps = torch.arange(1, batch * case.heads + 1).reshape(batch, case.heads)
    return torch.exp2(-8.0 * steps / steps.numel()).to(device=device, dtype=torch.float32)


def _remembered(case: Case, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Lay tensors into memory as the case wants them; their values stay, but for expanded.

    Packed rows, pages and caches are plain, or have their heads outside.
    """
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda x: x,
        "transposed": _heads_outside,
        "last-stride": _every_second,
        "far": _far,
        "far-rows": _far_rows,
    }
    if case.memory == "packed":
        return torch.stack((q, k, v), dim=2).unbind(2)
    if case.memory == "expanded":
        # All of the batch and all heads read the first.
        return q, *(x[:1, :, :1].expand(x.shape) for x in (k, v))
    return tuple(map(ways[case.memory], (q, k, v)))


def _heads_outside(x: Tensor) -> Tensor:
    """Return `x` (..., length, heads, headdim) with the rows of a head beside each other."""
    return x.transpose(-3, -2).contiguous().transpose(-3, -2)


def _every_second(x: Tensor) -> Tensor:
    """Return `x` with its last stride 2, and NaN between."""
    wide = torch.full((*x.shape, 2), math.nan, dtype=x.dtype, device=x.device)
    wide[..., 0] = x
    return wide[..., 0]


def _far(x: Tensor) -> Tensor:
    """Return `x` with the elements of its batch `FAR` apart: only their pages are ever touched."""
    memory = torch.empty((x.shape[0] - 1) * FAR + x[0].numel(), dtype=x.dtype, device=x.device)
    placed = memory.as_strided(x.shape, (FAR, *x[0].contiguous().stride()))
    return placed.copy_(x)


def _far_rows(x: Tensor) -> Tensor:
    """Return `x` with its rows `FAR_ROW` elements apart."""
    batch, length, heads, dim = x.shape
    size = (batch * length - 1) * FAR_ROW + heads * dim
    memory = torch.empty(size, dtype=x.dtype, device=x.device)
    strides = (length * FAR_ROW, FAR_ROW, dim, 1)
    return memory.as_strided(x.shape, strides).copy_(x)


class _Packing:
    """Where the keys of a ragged case go: drawn once, the same for k and v."""

    def __init__(self, case: Case, source: torch.Generator, device: str, beyond: float) -> None:
        self.case, self.device, self.beyond = case, device, beyond
        self.lengths = [length for _, length in case.sequences]
        self.padding = [3 * index + 1 for index in range(len(self.lengths))]
        pages = [-(-length // case.page) for length in self.lengths] if case.page else []
        # One page too many, and one that nobody owns: neither holds a key.
        self.pages = sum(pages) + 2
        self.order = torch.randperm(self.pages - 1, generator=source) if case.page else None
        self.owned = [] if self.order is None else list(self.order[:-1].split(pages))

    def layout(self) -> Layout:
        """Return the layout of the call."""
        case = self.case
        kinds = {
            "varlen": {"starts_k": self._whole([0, *accumulate(self.lengths)])},
            "paged": {"block_table": self._table()},
            "left-padded": {"left_padding": self._whole(self.padding)},
        }
        return Layout(
            starts_q=self._whole([0, *accumulate(queries for queries, _ in case.sequences)]),
            lengths_k=self._whole(self.lengths),
            max_q=max(queries for queries, _ in case.sequences),
            max_k=max(self.lengths),
            **kinds[case.layout],
        )

    def place(self, parts: list[Tensor]) -> Tensor:
        """Return the keys or values of all sequences in memory."""
        if self.case.layout == "varlen":
            return torch.cat(parts).to(self.device)
        heads, dim = parts[0].shape[1:]
        if self.case.layout == "left-padded":
            capacity = max(map(sum, zip(self.lengths, self.padding, strict=True))) + 5
            shape = (len(parts), capacity, heads, dim)
            cache = torch.full(shape, self.beyond, dtype=parts[0].dtype)
            for index, (part, begin) in enumerate(zip(parts, self.padding, strict=True)):
                cache[index, begin : begin + part.shape[0]] = part
            return cache.to(self.device)
        pool = torch.full(
            (self.pages, self.case.page, heads, dim), self.beyond, dtype=parts[0].dtype
        )
        for part, owned in zip(parts, self.owned, strict=True):
            for index, number in enumerate(owned.tolist()):
                rows = part[index * self.case.page : (index + 1) * self.case.page]
                pool[number, : rows.shape[0]] = rows
        return pool.to(self.device)

    def _table(self) -> Tensor:
        """Return the block table; entries beyond a sequence point at a page that nobody owns."""
        most = max((len(owned) for owned in self.owned), default=0)
        table = torch.full((len(self.owned), max(most, 1)), self.pages - 1, dtype=torch.int32)
        for row, owned in zip(table, self.owned, strict=True):
            row[: len(owned)] = owned
        return table.to(self.device)

    def _whole(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=self.device)


def output_gradient(case: Case, seed: int, device: str) -> Tensor:
    """Draw the gradient of the output, shaped as the output, from its own stream.

    Of a strided case it is a view as well, with the heads outside: autograd hands such ones over.
    """
    source = torch.Generator().manual_seed(seed ^ zlib.crc32(f"{case.id} dout".encode()))
    shape: tuple[int, ...] = (case.batch, case.seqlen_q, case.heads, case.dim_v)
    if case.layout != "dense":
        shape = (sum(queries for queries, _ in case.sequences), case.heads, case.dim_v)
    drawn = torch.randn(shape, generator=source).to(device=device, dtype=DTYPES[case.dtype])
    if "strided" in case.features:
        return _heads_outside(drawn)
    return drawn
