"""What a wheel must hold to be the one that was asked for; whole builds are integration tests."""

import pytest

from pinproof.audit.arch import Status
from pinproof.builds import make
from pinproof.builds.build import Build
from pinproof.builds.make import BuildError
from pinproof.builds.source import Kind, Source

SOURCE = Source(project="flash-attn", kind=Kind.RELEASE, place="2.8.3", identity="2.8.3")
BUILD = Build(source=SOURCE, torch="2.13.0", cuda="13.0", archs="120", python="3.12")


@pytest.mark.parametrize(
    "statuses",
    [[], [Status.NO_GPU_CODE], [Status.NATIVE], [Status.NATIVE, Status.NONE, Status.NO_GPU_CODE]],
)
def test_a_wheel_with_code_for_its_gpu_or_with_none_at_all_is_taken(statuses: list[Status]) -> None:
    make.check_native(BUILD, statuses)


@pytest.mark.parametrize("status", [Status.PTX_JIT, Status.NONE])
def test_a_wheel_whose_gpu_code_is_for_another_gpu_is_refused(status: Status) -> None:
    with pytest.raises(BuildError, match=f"holds no machine code for 120: {status}"):
        make.check_native(BUILD, [status, Status.NO_GPU_CODE])
