"""Time the FAST baseline beside torch's own kernels, and search for its best tiles.

Imports no torch: that is done by `pinproof_cell.throughput.contest`.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pinproof_cell.request import BadRequestError
from pinproof_cell.world import child

#: What FAST must reach of torch's flash kernel, as a geometric mean over the grid.
WANTED = 1.3
#: The longest that a child compiles, in seconds.
COMPILE = 120.0

EXAMPLE = """\
examples:
  python -m pinproof_cell tune --json tune.json
  python -m pinproof_cell tune --search --json tune.json

exit status: 0 FAST reaches 1.3 of torch's flash kernel over the grid; 1 it does not; 2 wrong words
"""


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    sub.add_argument("--search", action="store_true", help="try other tiles too, about a minute")
    sub.add_argument("--rounds", type=int, default=9, help="interleaved rounds at each point")
    sub.add_argument("--seed", type=int, default=0, help="of the order of the rounds")
    sub.add_argument("--only", default="", metavar="TEXT", help="points whose name holds TEXT")


def main(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Measure and print. Raises BadRequestError where there is no GPU, or no such point."""
    import torch

    from pinproof_cell.throughput import contest
    from pinproof_cell.world import device

    if not torch.cuda.is_available():
        raise BadRequestError("torch sees no CUDA device: nothing can be timed here")
    points = [p for p in (*contest.grid(), contest.DECODE) if options.only in p.name]
    if not points:
        raise BadRequestError(f"no point's name holds {options.only!r}")
    found: list[Mapping[str, Any]] = []
    for row in contest.compare(points, options.rounds, options.seed):
        print(compared(row), flush=True)
        found.append(row)
    mean = means(found)
    print("geometric means, grid of prefills: " + told(mean), flush=True)
    document: dict[str, Any] = {"device": device.facts("sm_90"), "compared": found, "means": mean}
    if options.search:
        compile_all()
        searched = []
        for row in contest.search(points, options.rounds, options.seed):
            print(ranked(row), flush=True)
            searched.append(row)
        print("\n".join(champions(searched)), flush=True)
        document["searched"] = searched
    return document, 0 if mean.get("flash", 0.0) >= WANTED else 1


def compile_all() -> None:
    """Compile every variant at the same time, in a child for each of the processors."""
    count = max(1, (os.cpu_count() or 1) - 2)
    words = ["-m", __name__]
    with ThreadPoolExecutor(count) as pool:
        ended = list(
            pool.map(
                lambda share: child.run(
                    [*words, str(share), str(count)], target="cuda", timeout=COMPILE
                ),
                range(count),
            )
        )
    for share, each in enumerate(ended):
        if each.reason:
            print(f"compiling, share {share}: {each.reason}", flush=True)


def compared(row: Mapping[str, Any]) -> str:
    """Return a line: TFLOP/s (GB/s of a decode) of each kernel, and FAST's share of the others."""
    fast = row["seconds"]["fast"]
    words = [f"{name} {rate(row, seconds)}" for name, seconds in row["seconds"].items()]
    for name in ("flash", "cudnn"):
        seconds = row["seconds"][name]
        words.append(f"{name} x {seconds / fast:.2f}" if seconds and fast else f"{name} x -")
    return f"{row['point']:<20} " + "  ".join(words)


def rate(row: Mapping[str, Any], seconds: float | None) -> str:
    """Return a speed, in the unit that tells of the point."""
    if seconds is None:
        return "   -"
    if row["point"].startswith("decode"):
        return f"{row['bytes'] / seconds / 1e9:.0f} GB/s"
    return f"{row['flop'] / seconds / 1e12:4.0f}"


def means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return FAST's speed over each other kernel's, the geometric mean over the prefills."""
    prefills = [row["seconds"] for row in rows if not row["point"].startswith("decode")]
    found = {}
    for name in ("flash", "cudnn"):
        ratios = [x[name] / x["fast"] for x in prefills if x[name] and x["fast"]]
        if ratios:
            found[name] = geometric(ratios)
    return found


def geometric(ratios: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def told(mean: Mapping[str, float]) -> str:
    """Return the means in words."""
    return ", ".join(f"{name} x {ratio:.3f}" for name, ratio in mean.items())


def ranked(row: Mapping[str, Any], most: int = 6) -> str:
    """Return a line: the fastest variants of a point."""
    best = sorted((s, name) for name, s in row["seconds"].items() if s is not None)
    words = [f"{name} {rate(row, seconds).strip()}" for seconds, name in best[:most]]
    return f"{row['point']:<20} " + "  ".join(words)


def champions(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield for each head dimension and mask the variants that are best over all lengths."""
    groups: dict[str, list[Mapping[str, float | None]]] = {}
    for row in rows:
        groups.setdefault(row["point"].rsplit("-", 1)[0], []).append(row["seconds"])
    for name, each in groups.items():
        complete = [v for v in each[0] if all(seconds[v] is not None for seconds in each)]
        shares = {
            variant: geometric(
                [min(x for x in s.values() if x is not None) / (s[variant] or 1.0) for s in each]
            )
            for variant in complete
        }
        best = sorted(shares.items(), key=lambda item: -item[1])[:6]
        words = "  ".join(f"{variant} {share:.3f}" for variant, share in best)
        yield f"best of all lengths, {name}: {words}"


if __name__ == "__main__":
    from pinproof_cell.throughput.contest import compile_share

    compile_share(*map(int, sys.argv[1:]))
