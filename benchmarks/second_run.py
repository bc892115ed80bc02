"""A second `nox -s matrix` with nothing changed, after a first one that really ran."""

from __future__ import annotations

from pathlib import Path

from benchmarks.checkout import NOX, copy, timed
from benchmarks.claim import Claim, median

MOST = 3.0
ROUNDS = 5


def measure(scratch: Path) -> Claim:
    """Prove the whole cpu matrix, then ask for it again."""
    root = copy(scratch / "project")
    words = (*NOX, "-s", "matrix", "--", "--matrix", "cpu")
    first = timed(words, root).wall
    before = _written(root)
    again = [timed(words, root) for _ in range(ROUNDS)]
    ran = [line for each in again for line in each.output.splitlines() if " start " in line]
    still = _written(root) == before and not ran
    seconds = median([each.wall for each in again])
    return Claim(
        name="second-run",
        asked=f"nothing runs, and it takes at most {MOST:g} s",
        seen=f"{seconds:.2f} s (first run {first:.0f} s), {len(ran)} steps ran",
        held=seconds <= MOST and still,
        data={"first": first, "again": [each.wall for each in again], "ran": ran},
    )


def _written(root: Path) -> dict[str, int]:
    """Return when each record and each environment's mark was written."""
    found = [*root.glob(".pinproof/evidence/**/*.json"), *root.glob(".nox/*/pinproof-install.json")]
    return {str(path): path.stat().st_mtime_ns for path in found}
