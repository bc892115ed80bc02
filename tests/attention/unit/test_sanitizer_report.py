"""What compute-sanitizer says is read whole, in the words of all its releases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof_cell.sanitizer.report import PREFIX, Hazard, parse

CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"

#: Of the user guides of the tool and of threads about it: tool -> what it printed, what is in it.
SAMPLES = {
    "memcheck, 2026, with a frame inside the kernel": (
        """\
========= Invalid __global__ write of size 4 bytes
=========     at out_of_bounds_function()+0xb0 in memcheck_demo.cu:39
=========     by thread (0,0,0) in block (0,0,0)
=========     Address 0x87654320 is out of bounds
=========     and is 137,179 bytes before the nearest allocation at 0x7cc43a8 of size 1,024 bytes
=========         Device Frame: out_of_bounds_kernel()+0x30 in memcheck_demo.cu:44
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: std::vector<float>::at(unsigned long) [0xadb6] in memcheck_demo
=========
========= ERROR SUMMARY: 1 error
""",
        Hazard(
            what="Invalid __global__ write of size 4 bytes",
            kernel="out_of_bounds_kernel()",
            where="memcheck_demo.cu:39, memcheck_demo.cu:44",
            address="0x87654320 is out of bounds",
        ),
    ),
    "memcheck, 2024, of a Triton kernel": (
        """\
========= Invalid __global__ read of size 16 bytes
=========     at 0xda0 in /opt/python/layers/fused_moe.py:175:fused_moe_kernel
=========     by thread (96,0,0) in block (44,0,0)
=========     Address 0x763995f9f000 is out of bounds
=========     and is 1,241,911,296 bytes before the nearest allocation at 0x7639e0000000
========= ERROR SUMMARY: 1 error
""",
        Hazard(
            what="Invalid __global__ read of size 16 bytes",
            kernel="fused_moe_kernel",
            where="fused_moe.py:175",
            address="0x763995f9f000 is out of bounds",
        ),
    ),
    "memcheck, 2025, of a Triton kernel": (
        """\
========= Invalid __global__ read of size 16 bytes
=========     at matmul_kernel+0xec0 in matmul_triton2.py:43
=========     by thread (18,0,0) in block (0,0,0)
=========     Access to 0x74505bcccca0 is out of bounds
========= ERROR SUMMARY: 1 error
""",
        Hazard(
            what="Invalid __global__ read of size 16 bytes",
            kernel="matmul_kernel",
            where="matmul_triton2.py:43",
            address="0x74505bcccca0 is out of bounds",
        ),
    ),
    "racecheck": (
        """\
========= Error: Race reported between Write access at sum(int *, int *)+0x90 in /x/block.cu:41
=========     and Read access at sum(int *, int *)+0x100 in /x/block.cu:51 [508 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
""",
        Hazard(
            what="Race between Write and Read access",
            kernel="sum(int *, int *)",
            where="block.cu:41, block.cu:51",
        ),
    ),
    "initcheck": (
        """\
========= Uninitialized __global__ memory read of size 4 bytes
=========     at vectorAdd(int *)+0x70 in /home/cuda/memset_error.cu:41
=========     by thread (31,0,0) in block (1,0,0)
=========     Address 0x7f3c7ec000fc
========= ERROR SUMMARY: 1 error
""",
        Hazard(
            what="Uninitialized __global__ memory read of size 4 bytes",
            kernel="vectorAdd(int *)",
            where="memset_error.cu:41",
            address="0x7f3c7ec000fc",
        ),
    ),
    "synccheck": (
        """\
========= Barrier error detected. Divergent thread(s) in warp
=========     at __cuda_sm70_warpsync+0x30
=========     by thread (0,0,0) in block (0,0,0)
=========     Device Frame:myKernel(int *)+0x3c0 in /home/cuda/illegal_syncwarp.cu:48
========= ERROR SUMMARY: 1 error
""",
        Hazard(
            what="Barrier error detected. Divergent thread(s) in warp",
            kernel="myKernel(int *)",
            where="illegal_syncwarp.cu:48",
        ),
    ),
    "synccheck, without lines": (
        """\
========= Barrier error detected. Divergent thread(s) in block.
=========     at 0x2c8 in kernel(float *)
========= ERROR SUMMARY: 1 error
""",
        Hazard(
            what="Barrier error detected. Divergent thread(s) in block", kernel="kernel(float *)"
        ),
    ),
}

#: Printed by the tool itself where there is no GPU.
NO_GPU = """\
========= COMPUTE-SANITIZER
========= Error: process didn't terminate successfully
=========     The application may have hit an error when dereferencing Unified Memory from the host.
========= Error: Target application terminated before first instrumented API call
========= Tracking kernels launched by child processes requires the --target-processes all option.
"""


@pytest.mark.parametrize(("text", "hazard"), SAMPLES.values(), ids=SAMPLES)
def test_a_finding_is_read_with_its_kernel_line_and_address(text: str, hazard: Hazard) -> None:
    found = parse("========= COMPUTE-SANITIZER\n" + text)
    assert found.hazards == (hazard,)
    assert found.errors == 1
    assert found.is_whole


def test_a_clean_run_has_nothing_and_is_whole() -> None:
    found = parse(CLEAN)
    assert (found.hazards, found.errors, found.is_whole) == ((), 0, True)


def test_a_run_that_never_reached_the_gpu_or_never_ended_is_not_clean() -> None:
    assert not parse(NO_GPU).is_whole
    assert "Target application terminated" in parse(NO_GPU).troubles[1]
    assert not parse(CLEAN.splitlines()[0]).is_whole
    assert not parse("").is_whole


def test_a_tool_that_missed_a_launch_is_not_clean() -> None:
    missed = "========= Internal Sanitizer Error: The Sanitizer didn't track the launch.\n"
    assert not parse(missed + CLEAN).is_whole


def test_a_race_that_may_be_intended_is_a_warning() -> None:
    text = SAMPLES["racecheck"][0].replace("Error: Race", "Warning: Race")
    (found,) = parse(text.replace("(1 error, 0 warnings)", "(0 errors, 1 warning)")).hazards
    assert found.warning


def test_the_lines_of_the_program_beside_the_tool_are_left_out() -> None:
    text, hazard = SAMPLES["initcheck"]
    noisy = "".join(f"{line}\nInvalid argument: at 0x1 in nothing\n" for line in text.splitlines())
    assert parse(noisy).hazards == (hazard,)


names = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
kernels = st.builds(
    lambda name, rest: name + rest, names, st.sampled_from(["", "(int *)", "<float, 64>(T1 *)"])
)
addresses = st.integers(0, 2**48).map(hex)


@st.composite
def findings(draw: st.DrawFn) -> tuple[list[str], Hazard]:
    """Return the lines of one memcheck finding in one of the two forms, and what it says."""
    kernel, file, line = draw(kernels), f"{draw(names)}.py", draw(st.integers(1, 9999))
    size, offset, address = draw(st.sampled_from([1, 4, 16])), draw(addresses), draw(addresses)
    old = f"at {offset} in /a/b/{file}:{line}:{kernel}"
    new = f"at {kernel}+{offset} in {file}:{line}"
    what = f"Invalid __{draw(st.sampled_from(['global', 'shared']))}__ read of size {size} bytes"
    lines = [
        f"{PREFIX} {what}",
        f"{PREFIX}     {draw(st.sampled_from([old, new]))}",
        f"{PREFIX}     by thread (1,0,0) in block (0,0,0)",
        f"{PREFIX}     Address {address} is out of bounds",
        PREFIX,
    ]
    place = f"{file}:{line}"
    said = f"{address} is out of bounds"
    return lines, Hazard(what=what, kernel=kernel, where=place, address=said)


@given(st.lists(findings(), max_size=5), st.lists(st.text(max_size=30), max_size=3))
def test_every_finding_of_a_log_is_found_and_equal_ones_are_counted(
    drawn: list[tuple[list[str], Hazard]], noise: list[str]
) -> None:
    lines = [line for block, _ in drawn for line in block]
    lines += [line for text in noise for line in text.splitlines() if not line.startswith(PREFIX)]
    found = parse("\n".join([*lines, f"{PREFIX} ERROR SUMMARY: {len(drawn)} errors"]))
    wanted = {(hazard.what, hazard.kernel, hazard.where) for _, hazard in drawn}
    assert {(hazard.what, hazard.kernel, hazard.where) for hazard in found.hazards} == wanted
    assert sum(hazard.times for hazard in found.hazards) == len(drawn) == found.errors


pieces = st.sampled_from(
    [f"{PREFIX} ", f"{PREFIX}     ", "Invalid ", "Error: ", "Race reported between ", " at ", "0x1",
     "+0x1 in ", "a.cu:3", "ERROR SUMMARY: ", "7 errors", "Device Frame:", "Address ", "\n", "k"]
)  # fmt: skip


@given(st.lists(pieces | st.text(max_size=4), max_size=30).map("".join))
def test_no_text_breaks_the_reader(text: str) -> None:
    found = parse(text)
    assert all(str(hazard) for hazard in found.hazards)


def test_what_was_counted_and_not_printed_is_counted_once() -> None:
    told = "errors were not printed. Use --print-limit option to adjust the number"
    text = f"========= ERROR SUMMARY: 769 errors\n========= ERROR SUMMARY: 669 {told}\n"
    assert parse(text).errors == 769


def test_words_that_are_not_known_are_kept_and_remarks_are_not_among_them() -> None:
    text = (
        "========= COMPUTE-SANITIZER\n========= Error in printing record\n"
        "========= Target application returned an error\n========= ERROR SUMMARY: 7048 errors\n"
    )
    found = parse(text)
    assert (found.errors, found.unknown) == (7048, ("Error in printing record",))
