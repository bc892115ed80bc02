"""Libraries made with the real compiler and linker."""

from pathlib import Path

import pytest
from libraries import PTX, SASS, container, entry, make_library

from pinproof.audit import library
from pinproof.audit.arch import Arch, Status

BLACKWELL = Arch(120)
NATIVE = container(entry(SASS, 90), entry(SASS, 120))
JIT = container(entry(PTX, 80), entry(SASS, 80))
HOPPER = container(entry(SASS, 90))


@pytest.mark.parametrize(
    ("gpu", "status", "driver"),
    [
        (NATIVE, Status.NATIVE, ""),
        (JIT, Status.PTX_JIT, "R580 or newer"),
        (HOPPER, Status.NONE, ""),
        (b"", Status.NO_GPU_CODE, ""),
        (container(), Status.NO_GPU_CODE, ""),
        (container(entry(PTX, 80, version=(9, 2))), Status.PTX_JIT, "the one of CUDA 13.2"),
        (container(entry(PTX, 80, version=(8, 7))), Status.PTX_JIT, "R570 or newer"),
    ],
)
def test_a_library_has_the_status_of_its_best_unit(
    tmp_path: Path, gpu: bytes, status: Status, driver: str
) -> None:
    found = library.read(make_library(tmp_path / "x.so", gpu), "x.so", BLACKWELL)
    assert found.status is status
    assert found.driver.startswith(driver)
    assert bool(found.driver) is bool(driver)
    assert found.all_native is (status is Status.NATIVE)


def test_a_unit_that_the_driver_must_compile_is_counted_beside_the_native_ones(
    tmp_path: Path,
) -> None:
    path = make_library(tmp_path / "x.so", NATIVE * 2 + JIT + HOPPER)
    found = library.read(path, "dir/x.so", BLACKWELL)
    assert found.status is Status.NATIVE
    assert found.units == {Status.NATIVE: 2, Status.PTX_JIT: 1, Status.NONE: 1}
    assert not found.all_native
    assert found.sass == ("sm_80", "sm_90", "sm_120")
    assert found.ptx == ("compute_80 (PTX 9.0)",)
    assert "libc.so.6" in found.needed
    assert (found.file, len(found.sha256)) == ("dir/x.so", 64)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_library_that_is_cut_off_is_unreadable_and_says_why(tmp_path: Path, kept: float) -> None:
    path = make_library(tmp_path / "x.so", NATIVE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    found = library.read(path, "x.so", BLACKWELL)
    assert found.status is Status.UNREADABLE
    assert found.is_broken
    assert "ELF" in found.problem or "cut off" in found.problem
