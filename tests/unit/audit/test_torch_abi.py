"""Which symbols are torch's, and which of them a torch has."""

from pathlib import Path

import pytest
from libraries import make_library

from pinproof.audit import torch_abi

CPP = (
    "_ZN3c104cuda9SetDeviceEab",
    "_ZN3c104cuda9SetDeviceEi",
    "_ZNK3c106SymInt6sym_neERKS0_",
    "_ZN2at4_ops5empty4callE",
    "_ZTVN5torch8autograd4NodeE",
    "_ZTIN3c105ErrorE",
    "_Z16THPVariable_WrapN2at10TensorBaseE",
    "_ZN8pybind116detail11type_casterIN2at6TensorEvE4loadENS_6handleEb",
)
STABLE = ("aoti_torch_get_data_ptr", "torch_library_impl")
NEITHER = ("cudaMalloc", "_ZNSt6vectorIiE9push_backE", "PyInit__C", "_ZN4vllm3c10E", "malloc")


def test_symbols_of_torch_are_known_by_their_names() -> None:
    cpp, stable = torch_abi.needs((*CPP, *STABLE, *NEITHER))
    assert cpp == frozenset(CPP)
    assert stable == frozenset(STABLE)


def test_only_torchs_own_libraries_export_for_torch(tmp_path: Path) -> None:
    make_library(tmp_path / "libc10.so", exports=[CPP[0]])
    make_library(tmp_path / "libtorch_cpu.so", exports=[CPP[2]])
    make_library(tmp_path / "libother.so", exports=[CPP[3]])
    exports = torch_abi.exports(tmp_path)
    assert {CPP[0], CPP[2]} <= exports
    assert CPP[3] not in exports


@pytest.mark.parametrize(
    ("file", "own"),
    [("libtorch_cuda.so", True), ("torch/lib/libc10.so", True), ("libcudart.so.12", False)],
)
def test_torchs_libraries_are_known_by_their_names(file: str, own: bool) -> None:
    assert torch_abi.is_torchs(file) is own
