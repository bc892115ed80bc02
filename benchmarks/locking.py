"""Making the committed locks of the shipped matrices anew, with uv's cache warm."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.checkout import NOX, copy, timed
from benchmarks.claim import Claim, median

MOST = 20.0
ROUNDS = 3


def measure(scratch: Path) -> Claim:
    """Renew every lock that is committed; the first time warms the cache and does not count.

    The solver asks the package index each time, so the figure is of the machine and its network.
    """
    root = copy(scratch / "project")
    words = (*NOX, "-s", "lock")
    timed(words, root)
    loads, again = [], []
    for _ in range(ROUNDS):
        loads.append(os.getloadavg()[0])
        again.append(timed(words, root))
    seconds = median([each.wall for each in again])
    cpu = median([each.cpu for each in again])
    locks = len(list(root.glob("lockfiles/*.lock.toml")))
    return Claim(
        name="locking",
        asked=f"the locks of the shipped matrices anew within {MOST:g} s",
        seen=f"{seconds:.1f} s for {locks} matrices ({cpu:.1f} s of processors)",
        held=seconds <= MOST,
        data={"wall": [each.wall for each in again], "cpu": cpu, "load": loads},
    )
