"""The device of one measuring process: inputs, arms, the anchor, the ceiling, the gauges."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.throughput import arms, pairs, workload
from pinproof_cell.throughput.workload import Point, Roof
from pinproof_cell.world import nvml

#: How long the anchor is timed, in seconds: a GPU that was idle takes a while to speed up.
ANCHOR_SECONDS = 0.3


class Bench:
    """The device of this process: makes inputs and arms, knows its ceiling, has its gauges.

    ``block`` is the number of rounds in a block of the warm-up, ``steady`` the change between
    block medians at which it ends.
    """

    def __init__(self, target: str, seed: int) -> None:
        self.device = "cpu" if target == "cpu" else "cuda"
        self.block, self.steady = (1, 0.1) if self.device == "cpu" else (5, 0.01)
        self.gauges: nvml.Nvml | None = None
        torch.manual_seed(seed)
        if self.device == "cpu":
            torch.set_num_threads(1)
            return
        properties = torch.cuda.get_device_properties(0)
        uuid = getattr(properties, "uuid", None)
        self.gauges = nvml.Nvml.open(None if uuid is None else str(uuid))
        cache = getattr(properties, "L2_cache_size", 0) or 2**26
        self._spill = torch.empty(4 * cache, dtype=torch.uint8, device="cuda")

    def inputs(self, point: Point) -> tuple[Tensor, Tensor, Tensor]:
        """Draw q, k and v: normal numbers, for zeros run up to 15% faster."""
        draw = partial(torch.randn, dtype=torch.bfloat16, device=self.device)
        keys = (point.batch, point.seqlen_k, point.heads_k, point.head_dim)
        return (
            draw(point.batch, point.seqlen_q, point.heads, point.head_dim),
            draw(keys),
            draw(keys),
        )

    def arm(self, call: arms.Call, *, capture: bool) -> arms.Arm:
        """Make an arm of `call`; raises `arms.CaptureError`."""
        if self.device == "cpu":
            return arms.CpuArm(call)
        return arms.CudaArm(call, self._spill.zero_, capture=capture)

    def anchor(self) -> dict[str, Any]:
        """Time a matrix product that no axis but torch changes, to compare cells by."""
        size = 512 if self.device == "cpu" else 4096
        kind = torch.float32 if self.device == "cpu" else torch.bfloat16
        left, right = (torch.randn(size, size, dtype=kind, device=self.device) for _ in range(2))
        arm = self.arm(lambda: torch.mm(left, right), capture=False)
        end = time.monotonic() + ANCHOR_SECONDS
        times = [arm.time()]
        while time.monotonic() < end:
            times.append(arm.time())
        seconds = pairs.median(times[len(times) // 2 :])  # the first half is the warm-up
        return {"name": f"matmul-{size}", "seconds": seconds, "flops": 2 * size**3 / seconds}

    def roof(self, anchor_flops: float) -> Roof:
        """Return the machine's ceiling: by its data sheet, or the anchor's where that is higher."""
        if self.device == "cpu" or self.gauges is None:
            return Roof(flops=None, bandwidth=None)
        properties = torch.cuda.get_device_properties(0)
        per_clock = workload.FLOP_PER_CLOCK.get(f"sm_{properties.major}{properties.minor}")
        clock, bandwidth = self.gauges.highest_sm_clock(), self.gauges.highest_bandwidth()
        if not (per_clock and clock and bandwidth):
            return Roof(flops=None, bandwidth=None)
        peak = per_clock * properties.multi_processor_count * clock * 1e6
        return Roof(flops=max(peak, anchor_flops), bandwidth=bandwidth)

    def sound(self) -> bool:
        """Return whether an error has left this process fit: a failed launch outlives its call.

        After a failed capture torch's allocator is in the middle of it, whatever this says.
        """
        if self.device == "cpu":
            return True
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
        return True
