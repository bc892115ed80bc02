"""Rounds: both sides timed one after the other, in random order, warm, checked and gauged."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from pinproof_cell.throughput import arms, pairs
from pinproof_cell.world import nvml

#: A row of a candidate's output may differ by this share of its length from the reference's:
#: five times what bf16 does to a correct kernel. The correctness stage judges, this only guards.
LOOSE = 0.05
#: A round is dropped where the SM clock fell below this share of the usual one.
LEAST_CLOCK = 0.75


class BaselineError(Exception):
    """Our own kernel failed, beside which the candidate is timed."""


@dataclass(kw_only=True)
class Rounds:
    """Interleaved rounds of a candidate against the reference, as they come in."""

    candidate: arms.Arm
    reference: arms.Arm
    gauges: nvml.Nvml | None
    rng: random.Random
    samples: list[tuple[float, float]] = field(default_factory=list)
    readings: list[nvml.Gauges] = field(default_factory=list)

    def once(self) -> tuple[float, float]:
        """Time both sides in random order; returns seconds of candidate and reference."""
        if self.rng.random() < 0.5:
            candidate = self.candidate.time()
            return candidate, self.reference.time()
        reference = self.reference.time()
        return self.candidate.time(), reference

    def warm_up(self, seconds: float, block: int, steady: float) -> bool:
        """Run blocks of rounds until their medians settle; False where `seconds` were too few."""
        end = time.monotonic() + seconds
        candidate: list[float] = []
        reference: list[float] = []
        while time.monotonic() < end:
            rounds = [self.once() for _ in range(block)]
            candidate.append(pairs.median([times[0] for times in rounds]))
            reference.append(pairs.median([times[1] for times in rounds]))
            if all(pairs.settled(blocks, change=steady) for blocks in (candidate, reference)):
                return True
        return False

    def measure(self, rule: pairs.StopRule) -> str | None:
        """Collect rounds until `rule` is content; returns why the speed is not genuine, or None.

        Two rounds, the first and one that the candidate cannot foresee, start from a poisoned
        output and must end in the right one.

        Raises BaselineError where the reference itself gives no finite output.
        """
        checked = {0, self.rng.randrange(1, rule.least)}
        begin = time.monotonic()
        ratios: list[float] = []
        while not rule.enough(ratios, time.monotonic() - begin):
            check = len(ratios) in checked
            if check:
                self.candidate.poison()
                self.reference.poison()
            self.samples.append(self.once())
            if self.gauges is not None:
                self.readings.append(self.gauges.read())
            ratios.append(pairs.log_ratio(*self.samples[-1]))
            if check and (worst := self._disagreement()) > LOOSE:
                return f"the output of a timed launch is off by {worst:.3g} of a row"
        return None

    def kept(self) -> list[tuple[float, float]]:
        """Return the samples without the rounds whose clock the hardware held down."""
        clocks = [reading.sm_clock for reading in self.readings if reading.sm_clock]
        if not self.readings:
            return self.samples
        usual = pairs.median(clocks) if clocks else 0.0
        return [
            sample
            for sample, reading in zip(self.samples, self.readings, strict=True)
            if not reading.disqualified and (reading.sm_clock or usual) >= LEAST_CLOCK * usual
        ]

    def conditions(self) -> dict[str, Any] | None:
        """Return the medians of the gauges and every throttle reason seen; None without gauges."""
        if not self.readings:
            return None
        medians: dict[str, Any] = {}
        for name in ("sm_clock", "memory_clock", "power", "temperature"):
            values = [getattr(reading, name) for reading in self.readings]
            known = [value for value in values if value is not None]
            medians[name] = pairs.median(known) if known else None
        seen = 0
        for reading in self.readings:
            seen |= reading.throttle or 0
        return medians | {"throttle": [word for bit, word in nvml.THROTTLES.items() if seen & bit]}

    def _disagreement(self) -> float:
        expected = self.reference.output()
        if not bool(torch.isfinite(expected).all()):
            raise BaselineError("the baseline's output is not finite")
        return arms.disagreement(self.candidate.output(), expected)
