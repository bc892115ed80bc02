"""What a tool is known to misread: shown with the reason, no hazard, and no clean run either.

racecheck takes a raw bulk copy (``cp.async.bulk``, the tensor memory accelerator without a
descriptor) for a write by the thread that started it, and does not see that its completion on an
mbarrier comes before the reads of other warps. Upstream says so in flash-attention,
AI/RACECHECK_TMA_HAZARD.md; `results/sanitizer` holds a correct pipeline to try it with.

synccheck wants all warps that meet at a barrier to come to it by one instruction. PTX asks that of
the threads of a warp, not of the warps: roles with code of their own may meet at a named barrier.
It rejects `branch_barrier.cu` in `results/sanitizer`, whose warps do so. In cuDNN's backward kernel
two warps await one barrier (2, of 320 threads) by instructions of their own, all as whole warps; in
its forward kernels, which synccheck takes, one warp does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pinproof_cell.sanitizer.report import Hazard


@dataclass(frozen=True, kw_only=True)
class Misread:
    """`tool` misreads, for ``reason``, what it says in words like ``what`` of such kernels."""

    tool: str
    what: re.Pattern[str]
    kernel: re.Pattern[str]
    reason: str

    def fits(self, tool: str, hazard: Hazard) -> bool:
        """Say if `hazard`, which `tool` told of, is one of these."""
        return (
            tool == self.tool
            and self.what.match(hazard.what) is not None
            and self.kernel.search(hazard.kernel) is not None
        )


KNOWN = (
    Misread(
        tool="racecheck",
        what=re.compile(r"Race between "),
        # Of cuDNN's attention for sm_90 it was seen, of CUTLASS's with warp groups upstream tells.
        # No kernel for sm_120: nobody has looked at one.
        kernel=re.compile(r"cudnn_\w*sdpa_sm90_|\bFlashAttn(Fwd|Bwd)Sm(90|100)\b"),
        reason="racecheck cannot follow bulk copies between warps, which this kernel makes",
    ),
    Misread(
        tool="synccheck",
        # Of a block only: threads of one warp that part before a barrier are a hazard.
        what=re.compile(r"Barrier error detected\. Divergent thread\(s\) in block$"),
        kernel=re.compile(r"cudnn_\w*sdpa_sm90_flash_bprop_"),
        reason="synccheck rejects a barrier that warps reach by different instructions, as here",
    ),
)


def weighed(tool: str, hazard: Hazard) -> Hazard:
    """Return `hazard` as a warning that says why, where `tool` is known to misread such a thing."""
    for known in KNOWN:
        if known.fits(tool, hazard):
            return replace(hazard, warning=True, note=known.reason)
    return hazard
