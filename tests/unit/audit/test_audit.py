"""A whole audit: libraries against a torch, and the load in a child."""

import sys
from pathlib import Path

import pytest
from libraries import SASS, container, entry, make_library

from pinproof.audit import audit, listing
from pinproof.audit.arch import Arch, Status
from pinproof.audit.audit import Order
from pinproof.errors import ConfigurationError, ExitCode, NothingRanError
from pinproof.locks.download import Target

ORDER = Order(gpu=Arch(120), target=Target(python="3.12", platform="x86_64-manylinux_2_35"))
OLD, NEW = "_ZN3c104cuda9SetDeviceEi", "_ZN3c104cuda9SetDeviceEab"


def torch(root: Path, symbol: str) -> Path:
    return make_library(root / "torch" / "lib" / "libc10.so", exports=[symbol], soname="libc10.so")


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """An extension with GPU code that was linked with a torch that has the old function."""
    code = container(entry(SASS, 120))
    own = torch(tmp_path / "old", OLD)
    return make_library(tmp_path / "ext" / "ext.so", code, wants=[OLD], needs=[own])


def test_an_extension_of_another_torch_is_named_before_it_is_imported(
    tmp_path: Path, extension: Path
) -> None:
    torch(tmp_path / "new", NEW)
    order = Order(gpu=ORDER.gpu, target=ORDER.target, torch=str(tmp_path / "new"))
    (found,) = audit.run([str(extension)], order)
    assert found.libraries[0].missing == (OLD,)
    assert audit.exit_code([found]) is ExitCode.UNSAFE
    assert f"{tmp_path / 'new'} has not: {OLD}" in listing.text(found)


def test_an_extension_of_this_torch_lacks_nothing(tmp_path: Path, extension: Path) -> None:
    order = Order(gpu=ORDER.gpu, target=ORDER.target, torch=str(tmp_path / "old"))
    (found,) = audit.run([str(extension)], order)
    assert found.libraries[0].missing == ()
    assert found.libraries[0].torch_symbols == 1
    assert found.libraries[0].status is Status.NATIVE
    assert audit.exit_code([found]) is ExitCode.OK


def test_a_torch_beside_the_extension_is_the_one_that_counts(tmp_path: Path) -> None:
    own = torch(tmp_path, OLD)
    make_library(tmp_path / "ext.so", wants=[OLD, NEW], needs=[own])
    (found,) = audit.run([str(tmp_path)], ORDER)
    by_name = {each.file: each for each in found.libraries}
    assert by_name["ext.so"].missing == (NEW,)
    assert by_name["torch/lib/libc10.so"].missing is None


def environment(root: Path) -> Path:
    """Return an environment that runs this Python."""
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(sys.executable)
    return root


def test_a_library_of_the_driver_loads_where_there_is_none(tmp_path: Path) -> None:
    home = environment(tmp_path / "env")
    code = container(entry(SASS, 120))
    driver = make_library(tmp_path / "libcuda.so.1", exports=["cuInit"], soname="libcuda.so.1")
    make_library(home / "good.so", code, wants=["cuInit"], needs=[driver])
    make_library(home / "bad.so", code, wants=["no_such_function"])
    order = Order(gpu=ORDER.gpu, target=ORDER.target, load=True)
    (found,) = audit.run([str(home)], order)
    errors = {each.file: each.load_error for each in found.libraries}
    assert errors["good.so"] == ""
    assert "undefined symbol: no_such_function" in str(errors["bad.so"])
    assert audit.exit_code([found]) is ExitCode.UNSAFE


def test_only_an_environment_can_be_loaded(extension: Path) -> None:
    order = Order(gpu=ORDER.gpu, target=ORDER.target, load=True)
    with pytest.raises(ConfigurationError, match="no environment"):
        audit.run([str(extension)], order)


def test_a_subject_without_a_library_is_no_audit(tmp_path: Path) -> None:
    with pytest.raises(NothingRanError):
        audit.run([str(tmp_path)], ORDER)
