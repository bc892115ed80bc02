"""`nox -l` on the shipped matrices against `nox -l` on an empty noxfile, in interleaved pairs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.checkout import NOX, copy, timed
from benchmarks.claim import Claim, median

PAIRS = 15
MOST = 1.5

#: As empty as nox accepts: without any session `nox -l` is an error.
EMPTY = """import nox


@nox.session
def nothing(session):
    pass
"""


def measure(scratch: Path) -> Claim:
    """List both again and again; the first pair warms the caches and does not count."""
    ours = copy(scratch / "ours")
    empty = scratch / "empty"
    empty.mkdir()
    (empty / "noxfile.py").write_text(EMPTY, encoding="utf-8")
    pairs = [
        (timed((*NOX, "-l"), ours).wall, timed((*NOX, "-l"), empty).wall) for _ in range(PAIRS + 1)
    ][1:]
    ratio = median([one / other for one, other in pairs])
    here, there = (median([pair[side] for pair in pairs]) for side in (0, 1))
    return Claim(
        name="listing",
        asked=f"nox -l within {MOST} x of an empty noxfile",
        seen=f"{ratio:.2f} x ({here * 1e3:.0f} ms against {there * 1e3:.0f} ms, {PAIRS} pairs)",
        held=ratio <= MOST,
        data={"ratio": ratio, "pairs": pairs},
    )
