"""The environment of a torch cell from a warm cache, verified as every environment is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.checkout import ROOT, environment, timed
from benchmarks.claim import Claim, median
from benchmarks.disk import MATRIX, PYTHON

ROUNDS = 7
MOST = 1.5


def measure(scratch: Path) -> Claim:
    """Make the environment again and again, each time against a run that has nothing to do.

    The difference is what it takes to make it: nox, uv, and the comparison of every file with its
    wheel. The first run fills the caches and does not count. On a busy machine the processor
    seconds say more than the clock, of which the shortest time counts.
    """
    (scratch / "matrix.toml").write_text(MATRIX.format(pythons=f'"{PYTHON}"'), encoding="utf-8")
    words = (sys.executable, "-m", "pinproof", "run", "--matrix", "disk", "--until", "install")
    env = environment(PYTHONPATH=str(ROOT / "src"), PINPROOF_ROOT=str(scratch))
    pairs = []
    for _ in range(ROUNDS + 1):
        for home in scratch.glob(".nox/cpu-*"):
            shutil.rmtree(home)
        for record in scratch.glob(".pinproof/evidence/cpu-*/install-*.json"):
            record.unlink()
        made = timed(words, scratch, env, code=3)  # nothing was proven, as nothing was asked
        if made.output.count(" ok cpu-") != 1:
            raise RuntimeError(made.output[-4000:])
        pairs.append((made, timed(words, scratch, env, code=3)))
    idle_wall = min(idle.wall for _, idle in pairs[1:])
    took = min(made.wall for made, _ in pairs[1:]) - idle_wall
    work = median([made.cpu - idle.cpu for made, idle in pairs[1:]])
    return Claim(
        name="creation",
        asked=f"the environment of a torch cell from a warm cache within {MOST} s",
        seen=f"{took:.2f} s, processors {work:.2f} s ({ROUNDS} rounds)",
        held=took <= MOST,
        data={"pairs": [[[each.wall, each.cpu] for each in pair] for pair in pairs]},
    )
