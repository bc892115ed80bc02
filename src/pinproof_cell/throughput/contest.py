"""The FAST baseline beside torch's own kernels, and other tiles of it, on a grid of forwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.candidates import torch_sdpa
from pinproof_cell.candidates.distribution import failure
from pinproof_cell.kernels import plan, reference
from pinproof_cell.kernels.tiles import Tiles
from pinproof_cell.throughput import arms, pairs, workload
from pinproof_cell.throughput.bench import Bench
from pinproof_cell.throughput.workload import Point

#: Tokens and width of a forward, as FlashAttention's own benchmarks have them.
TOKENS, WIDTH = 16384, 2048
LENGTHS = (1024, 2048, 4096, 8192, 16384)
#: A step of decoding: 32 sequences of 8k keys, 32 query heads on 8.
DECODE = next(point for point in workload.GPU_POINTS if point.seqlen_q == 1)

#: Tiles that are worth a try: rows, keys, warps, stages.
_WIDE = (
    *((64, 64, 4, 3), (64, 64, 4, 2), (64, 32, 4, 3), (128, 64, 4, 3)),
    *((128, 64, 8, 2), (128, 64, 8, 3), (128, 128, 8, 2), (128, 128, 8, 3)),
)
_NARROW = (
    *((64, 64, 4, 3), (64, 64, 4, 4), (64, 128, 4, 3), (128, 64, 4, 3)),
    *((128, 64, 8, 3), (128, 128, 8, 2), (128, 128, 8, 3)),
)
_STEP = tuple(
    Tiles(16, keys, warps, stages)
    for keys, warps, stages in (
        *((64, 4, 2), (64, 4, 3), (64, 4, 4), (128, 4, 2), (128, 4, 3), (64, 2, 3), (128, 8, 3)),
    )
)


def grid() -> tuple[Point, ...]:
    """Return the points: head dimensions 64 and 128, causal and full, 1k to 16k."""
    return tuple(
        Point(
            name=f"d{dim}-{'causal' if causal else 'full'}-{length // 1024}k",
            batch=TOKENS // length,
            seqlen_q=length,
            seqlen_k=length,
            heads=WIDTH // dim,
            heads_k=WIDTH // dim,
            head_dim=dim,
            causal=causal,
        )
        for dim, causal, length in product((64, 128), (True, False), LENGTHS)
    )


def variants(point: Point) -> Iterator[Tiles]:
    """Yield the tiles to try at a point."""
    if point is DECODE:
        yield from _STEP
        return
    for rows, keys, warps, stages in _WIDE if point.head_dim == 128 else _NARROW:
        for edges in (1, stages) if point.causal else (1,):
            yield Tiles(rows, keys, warps, stages, edges)


def compile_share(share: int, shares: int) -> None:
    """Launch every `shares`th variant once: what Triton compiles it keeps on disk for others."""
    shapes = {(p.head_dim, p.causal): p for p in reversed(grid())}.values()
    pairs = [(point, size) for point in (*shapes, DECODE) for size in variants(point)]
    for point, size in pairs[share::shares]:
        try:
            _fast(inputs(point), size)()
            torch.cuda.synchronize()
        except Exception as error:  # too large for this GPU: the search says so
            print(point.name, size, failure(error), flush=True)


def inputs(point: Point) -> Call:
    """Draw the call of a point."""
    q, k, v = Bench("cuda", 0).inputs(point)
    return Call(q=q, k=k, v=v, **point.keywords)


def compare(points: Iterable[Point], rounds: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each point: seconds of FAST, flash, cuDNN: medians of the rounds."""
    bench, rng = Bench("cuda", seed), random.Random(seed)  # noqa: S311 - an order of rounds
    for point in points:
        call = inputs(point)
        calls: dict[str, Callable[[], Tensor]] = {
            "fast": _fast(call, None),
            "flash": partial(_out, torch_sdpa.FLASH, call),
            "cudnn": partial(_out, torch_sdpa.CUDNN, call),
        }
        yield row(point, _timed(bench, calls, rounds, rng, capture=True))


def search(points: Iterable[Point], rounds: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each point: the seconds of every variant, named as its tiles are."""
    bench, rng = Bench("cuda", seed), random.Random(seed)  # noqa: S311 - an order of rounds
    for point in points:
        call = inputs(point)
        calls = {str(size): _fast(call, size) for size in variants(point)}
        yield row(point, _timed(bench, calls, rounds, rng, capture=False))


def row(point: Point, seconds: Mapping[str, float | None]) -> dict[str, Any]:
    """Return what was seen at a point; None is what could not run."""
    return {"point": point.name, "flop": point.flop(), "bytes": point.bytes(), "seconds": seconds}


def _fast(call: Call, size: Tiles | None) -> Callable[[], Tensor]:
    machine = reference.machine(call.q.device)

    def attend() -> Tensor:
        out, _, launches = plan.forward(call, None, "fast", machine, size)
        for launch in launches:
            launch.run()
        return out

    return attend


def _out(candidate: torch_sdpa.TorchSdpa, call: Call) -> Tensor:
    return candidate.forward(call)[0]


def _timed(
    bench: Bench,
    calls: Mapping[str, Callable[[], Tensor]],
    rounds: int,
    rng: random.Random,
    *,
    capture: bool,
) -> dict[str, float | None]:
    """Return the median seconds of each call, taken in rounds of random order; None if it fails."""
    ready: dict[str, arms.Arm] = {}
    for name, call in calls.items():
        try:
            ready[name] = bench.arm(call, capture=capture)
        except Exception as error:
            print(f"  {name}: {failure(error)}", flush=True)
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name in rng.sample(list(ready), len(ready)):
            times[name].append(ready[name].time())
    return {name: pairs.median(times[name]) if name in ready else None for name in calls}
