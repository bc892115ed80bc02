"""What compute-sanitizer is known to misread, and nothing beside it, becomes a warning."""

from __future__ import annotations

import pytest

from pinproof_cell.sanitizer.misread import weighed
from pinproof_cell.sanitizer.report import Hazard

CUDNN = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3f_64x128x64_kernel0_0"
FA3 = "void cutlass::device_kernel<flash::FlashAttnFwdSm90<Main, Epilogue, Scheduler>>(T1::Params)"
BACKWARD = CUDNN.replace("fprop", "bprop")
DIVERGENT = "Barrier error detected. Divergent thread(s)"


@pytest.mark.parametrize("kernel", [CUDNN, FA3])
def test_a_race_in_a_kernel_of_bulk_copies_is_a_warning_that_says_why(kernel: str) -> None:
    told = weighed("racecheck", Hazard(what="Race between Write and Read access", kernel=kernel))
    assert told.warning
    assert str(told).endswith("cannot follow bulk copies between warps, which this kernel makes")


def test_warps_of_a_known_kernel_that_meet_from_different_branches_are_a_warning() -> None:
    hazard = Hazard(what=f"{DIVERGENT} in block", kernel=BACKWARD)
    assert weighed("synccheck", hazard).warning


@pytest.mark.parametrize(
    ("tool", "what", "kernel"),
    [
        ("racecheck", "Race between Write and Read access", "flash_fwd_kernel"),
        ("racecheck", "Race between Write and Read access", "unified_attention_2d"),
        ("racecheck", "Race between Write and Read access", CUDNN.replace("sm90", "sm120")),
        ("memcheck", "Invalid __global__ read of size 16 bytes", CUDNN),
        ("synccheck", f"{DIVERGENT} in block", FA3),
        ("synccheck", f"{DIVERGENT} in block", CUDNN),
        ("synccheck", f"{DIVERGENT} in warp", BACKWARD),
        ("synccheck", "Barrier error detected. Invalid arguments", BACKWARD),
        ("racecheck", "3 errors", ""),
    ],
)
def test_every_other_hazard_stays_what_it_is(tool: str, what: str, kernel: str) -> None:
    hazard = Hazard(what=what, kernel=kernel)
    assert weighed(tool, hazard) is hazard
