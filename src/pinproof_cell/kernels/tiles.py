"""How a launch cuts its work into tiles: what the GPU's shared memory holds, and what is fast."""

from __future__ import annotations

from dataclasses import dataclass

#: Shared memory of one thread block on consumer Blackwell (sm_120), in bytes.
SM120_SHARED = 101_376
#: Up to so many rows, the queries of a step of decoding, are one tile of their own size.
DECODE = 64
#: Programs per multiprocessor from which on the GPU is busy, and the fewest keys worth one.
FULL, LEAST_KEYS = 4, 256


@dataclass(frozen=True)
class Tiles:
    """How one launch cuts the work: query rows, keys, warps, pipeline stages.

    ``edges`` are the stages of the loops over masked tiles.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int
    edges: int = 1

    def __str__(self) -> str:
        return f"{self.block_m}x{self.block_n}-w{self.warps}-s{self.stages}-e{self.edges}"


@dataclass(frozen=True)
class Machine:
    """What a launch must know of the GPU: bytes of shared memory per block, multiprocessors."""

    shared: int = SM120_SHARED
    processors: int = 1


def padded(size: int) -> int:
    """Return the power of two, at least 16, that `size` rows or columns occupy in a tile."""
    return max(16, 1 << (size - 1).bit_length())


def forward_tiles(
    *, mode: str, head_dim: int, rows: int, causal: bool, seqlen_k: int, shared: int
) -> Tiles:
    """Return the tiles of the forward kernel; `rows` are the queries of one head, or group.

    ``ref`` is fixed, so that it means the same on every GPU. ``fast`` was measured on an H200, and
    up to 128 dimensions it fits into the 99 KB of sm_120 as well.
    """
    width = padded(head_dim)
    if mode == "ref":
        return Tiles(64, 32, 4, 1) if width <= 128 else Tiles(32, 16, 4, 1)
    if rows <= DECODE:
        return Tiles(padded(rows), 64 if width <= 128 else 32, 4, 2)
    if width <= 64:
        return Tiles(128, 64, 8, 3, 3) if causal else Tiles(128, 128, 8, 3)
    if width <= 128 and causal and seqlen_k <= 8192:
        return Tiles(64, 64, 4, 3, 3)
    if width <= 128:
        return Tiles(128, 64, 8, 3, 3 if causal else 1)
    return Tiles(128, 64, 8, 2) if shared > 160_000 else Tiles(64, 32, 4, 2)


def splits(programs: int, keys: int, processors: int) -> int:
    """Return into how many parts to cut the keys of each tile, so that no processor is idle.

    Each part has `LEAST_KEYS` keys at least: joining the parts costs as much as reading a few.
    """
    return max(1, min(-(-FULL * processors // programs), keys // LEAST_KEYS))


def backward_tiles(*, mode: str, kernel: str, head_dim: int, shared: int) -> Tiles:
    """Return the tiles of a launch of `kernel`, "keys" or "queries"; see `forward_tiles`.

    The tile that is held is the larger: block_n of "keys", block_m of "queries".
    """
    width = padded(head_dim)
    if mode == "ref":
        held, walked = (64, 32) if width <= 64 else (32, 16) if width <= 128 else (16, 16)
        warps, stages = 4, 1
    elif width <= 64:
        held, walked, warps, stages = (128, 64, 8, 2)
    elif width <= 128:
        held, walked, warps, stages = (128, 64, 8, 2) if shared > 160_000 else (64, 32, 4, 2)
    else:
        held, walked, warps, stages = (64, 32, 8, 2) if shared > 160_000 else (64, 16, 8, 1)
    if kernel == "keys":
        return Tiles(walked, held, warps, stages)
    return Tiles(held, walked, warps, stages)
