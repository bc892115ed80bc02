"""How fast a matrix expands under all rules, and how much memory that takes.

Sizes run in ascending order in one process, so `grown_mib` is what a size needs beyond all the
smaller ones: flat memory is a last row near zero.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claim import Claim
from pinproof.matrix import rules
from pinproof.matrix.cell import expand
from pinproof.matrix.matrixfile import Matrix

SIZES = (10_000, 100_000, 1_000_000)
LEAST = 100_000
FLAT_MIB = 16  # a million cells, kept, would take hundreds


def matrix_of(size: int) -> Matrix:
    """Return a matrix of `size` combinations on all six axes, for sizes that are powers of ten."""
    patches = size // 10_000
    return Matrix(
        name="benchmark",
        target="sm_120",
        axes={
            "python": ("3.10", "3.11", "3.12", "3.13", "3.14"),
            "torch": _versions("2.{}.{}", range(6, 16), range(patches)),
            "cuda": ("12.6", "12.8", "12.9", "13.0"),
            "triton": ("bundled", "3.5.1", "3.6.0", "3.7.1", "3.9.0"),
            "flash-attn": ("none", "2.7.2", "2.8.3", "2.8.3.post2", "git:main"),
            "vllm": ("none", "0.24.0"),
        },
        limit=size,
    )


def _versions(form: str, *ranges: Sequence[int]) -> tuple[str, ...]:
    first, second = ranges
    return tuple(form.format(one, other) for one in first for other in second)


def measure(size: int) -> dict[str, Any]:
    """Expand a matrix of `size` combinations once and count what comes out."""
    matrix = matrix_of(size)
    before = _peak_mib()
    started, began = time.perf_counter(), time.process_time()
    count = kept = 0
    for cell in expand(matrix):
        count += 1
        kept += cell.exclusion is None
    seconds, processor = time.perf_counter() - started, time.process_time() - began
    return {
        "combinations": count,
        "kept": kept,
        "seconds": round(seconds, 3),
        "per_second": round(count / seconds),
        "per_cpu_second": round(count / processor),
        "grown_mib": round(_peak_mib() - before, 1),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def claim(scratch: Path) -> Claim:
    """Measure every size; `scratch` is not used."""
    known = rules.shipped()  # reading the rules is no part of expansion
    rows = [measure(size) for size in SIZES]
    slowest = min(row["per_second"] for row in rows)
    # What neighbours on the machine take shows in the difference of the two.
    processor = min(row["per_cpu_second"] for row in rows)
    grown = rows[-1]["grown_mib"]
    return Claim(
        name="expansion",
        asked=f"{LEAST:,} combinations/s under all rules, flat memory to {SIZES[-1]:,}",
        seen=f"{slowest:,}/s at the slowest size ({processor:,} per processor second),"
        f" {grown} MiB more for the last ({len(known.excluding)} rules)",
        held=slowest >= LEAST and grown <= FLAT_MIB,
        data={"rows": rows},
    )
