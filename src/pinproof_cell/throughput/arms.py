"""One side of a pair: a call that is launched often enough to be timed, and its output.

On a GPU an arm is a CUDA graph of several launches, so that the host's overhead is not timed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pinproof_cell.candidates.distribution import failure

#: An arm runs at least this long, in seconds: clocks and events are exact to microseconds.
LEAST = 2e-3
MOST_LAUNCHES = 256

Call = Callable[[], Tensor]


class CaptureError(Exception):
    """The call cannot be captured in a CUDA graph; the process is not fit for more of them."""


class Arm(Protocol):
    """What a round needs of either side."""

    clock: str
    launches: int

    def time(self) -> float:
        """Run once and return the seconds of one launch."""
        ...

    def poison(self) -> None:
        """Fill the output with NaN, so that only a launch that writes it can make it good."""
        ...

    def output(self) -> Tensor:
        """Return the output of the last timed launch."""
        ...


def launches_for(seconds: float) -> int:
    """Return how many launches of `seconds` each make an arm that is long enough."""
    return max(1, min(MOST_LAUNCHES, math.ceil(LEAST / max(seconds, 1e-9))))


class CpuArm:
    """Calls timed with the monotonic clock."""

    clock = "monotonic"

    def __init__(self, call: Call) -> None:
        self._call = call
        self.launches = 1
        self.time()  # the first call compiles and allocates
        self.launches = launches_for(min(self.time() for _ in range(2)))

    def time(self) -> float:
        """Run the launches and return the seconds of one."""
        begin = time.perf_counter_ns()
        for _ in range(self.launches):
            self._out = self._call()
        return (time.perf_counter_ns() - begin) / 1e9 / self.launches

    def poison(self) -> None:
        """Fill the last output with NaN and keep it: a call that hands it out again is caught."""
        self._out.fill_(math.nan)

    def output(self) -> Tensor:
        """Return the output of the last launch."""
        return self._out


class CudaArm:
    """Launches between two events, with the L2 cache flushed before.

    With `capture` they are one replay of a CUDA graph; else the host launches them one by one,
    which is right only where a launch is longer than its overhead.
    """

    def __init__(self, call: Call, flush: Callable[[], object], *, capture: bool) -> None:
        self.clock = "cuda-graph" if capture else "cuda-events"
        self._call = call
        self._flush = flush
        self._begin = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)
        self.launches = 1
        self._launch: Callable[[], None] = self._one_by_one
        self.time()  # the first call compiles and allocates
        self.launches = launches_for(min(self.time() for _ in range(3)))
        if not capture:
            return
        self._capture()
        # Short kernels wait for the host above, and look longer than they are in a graph.
        needed = launches_for(min(self.time() for _ in range(3)))
        if needed > self.launches:
            self.launches = needed
            self._capture()

    def time(self) -> float:
        """Run the launches and return the seconds of one.

        The flush keeps the GPU busy while the host queues event and launch behind it, so that
        the first event is not recorded early. Synchronising the whole device, not a stream, also
        waits for work that a call has put on a stream of its own.
        """
        torch.cuda.synchronize()
        self._flush()
        self._begin.record()
        self._launch()
        self._end.record()
        torch.cuda.synchronize()
        return self._begin.elapsed_time(self._end) / 1e3 / self.launches

    def poison(self) -> None:
        """Fill the output with NaN. A graph writes to this very tensor at each replay."""
        self._out.fill_(math.nan)

    def output(self) -> Tensor:
        """Return the output of the last launch."""
        return self._out

    def _one_by_one(self) -> None:
        for _ in range(self.launches):
            self._out = self._call()

    def _capture(self) -> None:
        """Capture the launches in a graph. Raises CaptureError.

        A capture that failed leaves torch's allocator in the middle of it, so the caller should
        end the process; hence an error of its own.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._one_by_one()
            graph.replay()
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise CaptureError(failure(error)) from error
        self._launch = graph.replay


def disagreement(out: Tensor, expected: Tensor) -> float:
    """Return the largest relative error of a row (the last axis), or inf where one is not finite.

    A row that is zero (no visible key) counts against a thousandth of the mean row.
    """
    wanted = expected.float()
    size = wanted.norm(dim=-1)
    error = (out.float() - wanted).norm(dim=-1) / size.clamp_min(1e-3 * float(size.mean()) + 1e-30)
    worst = float(error.max())
    return worst if math.isfinite(worst) else math.inf
