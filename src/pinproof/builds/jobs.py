"""How many compilers run side by side, from what the machine has left; and if that was too many."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

#: What is left to everything that is no compiler, of the memory that is free.
SHARE = 0.9

_OOM = re.compile(
    r"died due to signal 9|Killed signal terminated program|virtual memory exhausted"
    r"|cannot allocate memory|out of memory allocating|std::bad_alloc|^Killed$"
    r"|(?:nvcc|cicc|ptxas|cc1plus|g\+\+|c\+\+).*\bKilled$",
    re.MULTILINE | re.IGNORECASE,
)

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a build may take: processors, and memory in GiB; ``why`` says where that comes from."""

    cores: int
    memory_gib: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """How many compilers run at once, and why not more; ``is_retry`` after the memory failed."""

    count: int
    why: str
    is_retry: bool = False


def room(cgroup: Path = CGROUP) -> Room:
    """Look at what this process may use now: its processors, its cgroup, the free memory."""
    cores, said = len(os.sched_getaffinity(0)), []
    quota = _words(cgroup / "cpu.max")
    if len(quota) == 2 and quota[0].isdigit():
        cores = max(1, min(cores, int(quota[0]) // int(quota[1])))
        said.append(f"cgroup allows {cores} cores")
    free = psutil.virtual_memory().available / 2**30
    said.append(f"{free:.1f} GiB are free")
    most, used = _words(cgroup / "memory.max"), _words(cgroup / "memory.current")
    if most and most[0].isdigit() and used:
        left = (int(most[0]) - int(used[0])) / 2**30
        said.append(f"the cgroup has {left:.1f} GiB left")
        free = min(free, left)
    return Room(cores=cores, memory_gib=free, why=", ".join(said))


def choose(room: Room, gib_per_unit: float) -> Jobs:
    """Return as many jobs as processors and memory allow, one at the least."""
    by_memory = int(room.memory_gib * SHARE / gib_per_unit)
    count = max(1, min(room.cores, by_memory))
    limit = "cores" if room.cores <= by_memory else "memory"
    return Jobs(
        count=count,
        why=f"{room.cores} cores, {room.memory_gib:.1f} GiB at {gib_per_unit:g} GiB a unit"
        f" ({room.why}): {limit} set the limit",
    )


def halved(jobs: Jobs) -> Jobs:
    """Return half as many, after the memory did not suffice."""
    why = f"{jobs.count} ran out of memory"
    return Jobs(count=max(1, jobs.count // 2), why=why, is_retry=True)


def ran_out_of_memory(output: str) -> bool:
    """Say if a compiler was killed for want of memory, by what a build said."""
    return _OOM.search(output) is not None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
