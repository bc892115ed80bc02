"""The lines of a script that draw the inputs of a case: the very numbers that were judged."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.inputs import BEYOND, FAR

TYPES = {"fp16": "torch.float16", "bf16": "torch.bfloat16", "fp32": "torch.float32"}


def lines(case: Case, seed: int, device: str) -> Iterator[str]:
    """Yield lines that define q, k, v, what else a call takes, and `sequences`.

    The latter are q, k and v of each sequence, (length, heads, headdim), which the reference takes.
    """
    yield f"source = torch.Generator().manual_seed({seed ^ zlib.crc32(case.id.encode())})"
    yield "sequences = []"
    yield f"for queries, keys in {list(case.sequences)}:"
    shapes = (
        f"queries, {case.heads}, {case.head_dim}",
        f"keys, {case.heads_k}, {case.head_dim}",
        f"keys, {case.heads_k}, {case.dim_v}",
    )
    for name, shape in zip("qkv", shapes, strict=True):
        yield f"    {name} = torch.randn({shape}, generator=source)"
    yield from (f"    {line}" for line in _kind(case))
    yield f"    sequences.append([x.to({TYPES[case.dtype]}) for x in (q, k, v)])"
    if case.alibi:
        count = len(case.sequences) * case.heads
        yield f"steps = torch.arange(1, {count + 1}).reshape({len(case.sequences)}, {case.heads})"
        yield f"slopes = torch.exp2(-8.0 * steps / {count}){_to(device)}"
    if case.sinks:
        yield f"sinks = torch.randn({case.heads}, generator=source).bfloat16().float(){_to(device)}"
    yield from _dense(case, device) if case.layout == "dense" else _ragged(case, device)
    if case.backward:
        yield from _output_gradient(case, seed, device)


def _to(device: str) -> str:
    return "" if device == "cpu" else f'.to("{device}")'


def _kind(case: Case) -> Iterator[str]:
    match case.kind:
        case "peaked":
            yield "place = 4 * torch.arange(keys) / max(keys, 1)"
            yield "q, k, v = 2 * q, 2 * k, v + place[:, None, None]"
        case "large":
            yield "q, k = 6 * q, 6 * k"
        case "outlier":
            yield f"column = torch.ones({case.head_dim})"
            yield f"column[:: {max(case.head_dim // 3, 1)}] = 10.0"
            yield "q, k = q * column, k * column"
        case "shifted" | "edge" | "sunken":
            logit = {"shifted": -120.0, "edge": 4e4, "sunken": -5.5e4}[case.kind]
            scale = case.head_dim**-0.5 if case.scale is None else case.scale
            size = math.sqrt(abs(logit) / scale / case.head_dim)
            yield f"q, k = q / 8 + {size!r}, k / 8 + {math.copysign(size, logit)!r}"


def _dense(case: Case, device: str) -> Iterator[str]:
    yield f"q, k, v = (torch.stack(parts){_to(device)} for parts in zip(*sequences))"
    match case.memory:
        case "packed":
            yield "q, k, v = torch.stack((q, k, v), dim=2).unbind(2)"
        case "transposed":
            inside = "x.transpose(1, 2).contiguous().transpose(1, 2)"
            yield f"q, k, v = ({inside} for x in (q, k, v))"
        case "expanded":
            yield "k, v = (x[:1, :, :1].expand(x.shape) for x in (k, v))"
        case "last-stride":
            yield "# Every second number of memory that is NaN between."
            yield "wide = [x.new_full((*x.shape, 2), torch.nan) for x in (q, k, v)]"
            yield "for x, inner in zip(wide, (q, k, v)):"
            yield "    x[..., 0] = inner"
            yield "q, k, v = (x[..., 0] for x in wide)"
        case "far":
            yield "# The elements of the batch lie more than 2^31 numbers apart."
            yield "apart = []"
            yield "for x in (q, k, v):"
            yield f"    memory = x.new_empty({(case.batch - 1) * FAR} + x[0].numel())"
            yield f"    view = memory.as_strided(x.shape, ({FAR}, *x[0].stride()))"
            yield "    apart.append(view.copy_(x))"
            yield "q, k, v = apart"
    yield "sequences = list(zip(q, k, v))"


def _ragged(case: Case, device: str) -> Iterator[str]:
    queries, keys = ([pair[side] for pair in case.sequences] for side in (0, 1))
    padding = [3 * index + 1 for index in range(len(keys))]
    pages = [-(-length // case.page) for length in keys] if case.page else [0]
    count = sum(pages) + 2
    where = {
        "varlen": f"starts_k=torch.tensor({_starts(keys)}",
        "left-padded": f"left_padding=torch.tensor({padding}",
        "paged": f"block_table=torch.full(({len(keys)}, {max(*pages, 1)}), {count - 1}",
    }
    if device != "cpu":
        yield f'sequences = [[x.to("{device}") for x in one] for one in sequences]'
    yield "q = torch.cat([q for q, _, _ in sequences])"
    yield "layout = Layout("
    yield f"    starts_q=torch.tensor({_starts(queries)}, dtype=torch.int32, device=q.device),"
    yield f"    lengths_k=torch.tensor({keys}, dtype=torch.int32, device=q.device),"
    yield f"    max_q={max(queries)}, max_k={max(keys)},"
    yield f"    {where[case.layout]}, dtype=torch.int32, device=q.device),"
    yield ")"
    match case.layout:
        case "varlen":
            yield "k, v = (torch.cat([one[i] for one in sequences]) for i in (1, 2))"
        case "left-padded":
            capacity = max(map(sum, zip(keys, padding, strict=True))) + 5
            yield from _pool(case, f"{len(keys)}, {capacity}")
            yield "for i, (_, one_k, one_v) in enumerate(sequences):"
            yield "    begin = int(layout.left_padding[i])"
            yield "    k[i, begin : begin + len(one_k)] = one_k"
            yield "    v[i, begin : begin + len(one_v)] = one_v"
        case "paged":
            yield from _paged(case, count, pages)


def _paged(case: Case, count: int, pages: list[int]) -> Iterator[str]:
    yield "# Pages in an order of chance; beyond a sequence stands a page that nobody owns."
    yield f"order = torch.randperm({count - 1}, generator=source)[:-1].split({pages})"
    yield from _pool(case, f"{count}, {case.page}")
    yield "for row, owned, (_, one_k, one_v) in zip(layout.block_table, order, sequences):"
    yield "    row[: len(owned)] = owned"
    yield "    for i, number in enumerate(owned.tolist()):"
    yield f"        rows = slice({case.page} * i, {case.page} * (i + 1))"
    yield "        k[number, : len(one_k[rows])] = one_k[rows]"
    yield "        v[number, : len(one_v[rows])] = one_v[rows]"


def _pool(case: Case, places: str) -> Iterator[str]:
    for name, dim in (("k", case.head_dim), ("v", case.dim_v)):
        yield f"{name} = q.new_full(({places}, {case.heads_k}, {dim}), {BEYOND})"


def _starts(lengths: list[int]) -> list[int]:
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts


def _output_gradient(case: Case, seed: int, device: str) -> Iterator[str]:
    shape: tuple[int, ...] = (case.batch, case.seqlen_q, case.heads, case.dim_v)
    if case.layout != "dense":
        shape = (sum(queries for queries, _ in case.sequences), case.heads, case.dim_v)
    yield f"source.manual_seed({seed ^ zlib.crc32(f'{case.id} dout'.encode())})"
    yield f"dout = torch.randn{shape}.to(q)".replace(")", ", generator=source)", 1)
    if "strided" in case.features:
        yield "dout = dout.transpose(1, 2).contiguous().transpose(1, 2)"
