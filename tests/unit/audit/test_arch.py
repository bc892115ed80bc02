"""Which code runs on which GPU."""

import pytest

from pinproof.audit import arch
from pinproof.audit.arch import Arch, Code, Kind, Status
from pinproof.errors import ConfigurationError

BLACKWELL = Arch(120)


@pytest.mark.parametrize("text", ["sm_120", "120", "12.0"])
def test_a_gpu_has_several_spellings(text: str) -> None:
    assert arch.parse(text) == BLACKWELL


@pytest.mark.parametrize("text", ["sm_12O", "sm_121x", "blackwell", "", "12.9", "sm_120a", "999"])
def test_a_gpu_that_does_not_exist_is_refused_with_the_ones_that_do(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no GPU architecture") as error:
        arch.parse(text)
    assert "sm_121" in error.value.remedy


@pytest.mark.parametrize(
    ("kind", "code", "gpu", "status"),
    [
        (Kind.SASS, Arch(120), 120, Status.NATIVE),
        (Kind.SASS, Arch(120, "a"), 120, Status.NATIVE),
        (Kind.SASS, Arch(120, "f"), 120, Status.NATIVE),
        (Kind.SASS, Arch(120), 121, Status.NATIVE),
        (Kind.SASS, Arch(120, "f"), 121, Status.NATIVE),
        (Kind.SASS, Arch(120, "a"), 121, Status.NONE),
        (Kind.SASS, Arch(121), 120, Status.NONE),
        (Kind.SASS, Arch(80), 86, Status.NATIVE),
        (Kind.SASS, Arch(80), 87, Status.NONE),
        (Kind.SASS, Arch(80), 120, Status.NONE),
        (Kind.SASS, Arch(90), 120, Status.NONE),
        (Kind.SASS, Arch(100, "f"), 120, Status.NONE),
        (Kind.PTX, Arch(80), 120, Status.PTX_JIT),
        (Kind.PTX, Arch(120), 120, Status.PTX_JIT),
        (Kind.PTX, Arch(90, "a"), 120, Status.NONE),
        (Kind.PTX, Arch(120, "a"), 120, Status.PTX_JIT),
        (Kind.PTX, Arch(100, "f"), 120, Status.NONE),
        (Kind.PTX, Arch(120, "f"), 121, Status.PTX_JIT),
        (Kind.PTX, Arch(121), 120, Status.NONE),
        (Kind.OTHER, Arch(120), 120, Status.NONE),
    ],
)
def test_machine_code_stays_in_its_generation_and_ptx_goes_upwards(
    kind: Kind, code: Arch, gpu: int, status: Status
) -> None:
    assert arch.status(Code(kind, code, (9, 0)), Arch(gpu)) is status


@pytest.mark.parametrize(
    ("version", "cuda"),
    [((9, 0), "13.0"), ((8, 8), "12.9"), ((8, 6), "12.7"), ((8, 5), "12.5"), ((7, 8), "11.8")],
)
def test_a_ptx_version_belongs_to_the_toolkit_that_first_wrote_it(
    version: tuple[int, int], cuda: str
) -> None:
    assert arch.cuda_of_ptx(version) == cuda
    assert arch.cuda_of_ptx((6, 5)) == ""
