"""What the tuning verb says of its times: ratios, means, the best tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pinproof_cell.throughput import contest, tune


def row(point: str, **seconds: float | None) -> Mapping[str, Any]:
    return {"point": point, "flop": 2e12, "bytes": 3e9, "seconds": seconds}


def test_a_line_says_speed_and_how_many_times_the_others_it_is() -> None:
    """2 TFLOP in 4 ms are 500 TFLOP/s, and twice a kernel that needs 8 ms."""
    line = tune.compared(row("d64-full-1k", fast=4e-3, flash=8e-3, cudnn=None))
    assert "fast  500" in line
    assert "flash x 2.00" in line
    assert "cudnn x -" in line
    assert "1000 GB/s" in tune.compared(row("decode-x", fast=3e-3, flash=3e-3, cudnn=3e-3))


def test_the_mean_is_geometric_over_prefills_that_both_can_run() -> None:
    """Decoding and kernels that could not run stay out of the mean."""
    rows = [
        row("a-1k", fast=1.0, flash=2.0, cudnn=None),
        row("a-2k", fast=1.0, flash=0.5, cudnn=0.8),
        row("decode-x", fast=1.0, flash=100.0, cudnn=100.0),
    ]
    assert tune.means(rows) == pytest.approx({"flash": 1.0, "cudnn": 0.8})


def test_the_best_tiles_are_those_of_all_lengths_together() -> None:
    """A variant that wins one length and loses another by more is not the best of both."""
    rows = [row("d64-full-1k", a=1.0, b=1.1, c=None), row("d64-full-2k", a=2.0, b=1.0, c=1.0)]
    (line,) = tune.champions(rows)
    assert line.startswith("best of all lengths, d64-full: b ")
    assert "c" not in line.split(": ")[1]
    assert tune.ranked(rows[1]).split()[1] == "b"


def test_the_grid_has_the_same_tokens_everywhere_and_names_of_its_own() -> None:
    """Twenty points of 16k tokens; every point has variants, no two of one name."""
    points = contest.grid()
    assert len({point.name for point in points}) == 20
    assert {point.batch * point.seqlen_q for point in points} == {contest.TOKENS}
    for point in (*points, contest.DECODE):
        names = [str(size) for size in contest.variants(point)]
        assert len(names) == len(set(names)) > 5
