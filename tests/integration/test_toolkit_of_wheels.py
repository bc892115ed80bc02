"""nvcc from the package index compiles a real extension, and the audit says for which GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pinproof.audit import library
from pinproof.audit.arch import Arch, Status
from pinproof.builds import toolkit
from pinproof.builds.toolkit import Toolkit
from pinproof.locks import installer

KERNEL = """
#include <cuda_bf16.h>
#include <cuda/std/limits>
__global__ void scale(__nv_bfloat16* x, float by, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = __float2bfloat16(__bfloat162float(x[i]) * by);
}
extern "C" int scale_on_gpu(__nv_bfloat16* x, float by, int n) {
  scale<<<(n + 255) / 256, 256>>>(x, by, n);
  return cudaGetLastError();
}
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    """The compiler of CUDA 13.0, from wheels alone."""
    home = tmp_path_factory.mktemp("toolkit")
    tool = installer.installer()
    wanted = toolkit.requirement("13.0", toolkit.COMPILER)
    command = [tool.uv, "pip", "install", *tool.source_args, "--target", str(home / "site"), wanted]
    subprocess.run([*command, "--python", sys.executable], env=dict(tool.env), check=True)
    return toolkit.lay_out(home / "site", home / "cuda")


def compiled(home: Toolkit, directory: Path, arch: str) -> Path:
    source, out = directory / "scale.cu", directory / f"{arch}.so"
    source.write_text(KERNEL)
    # Not -arch: that would add PTX, which a newer GPU's driver compiles.
    only = f"arch={arch.replace('sm', 'compute')},code={arch}"
    words = ["-shared", "-Xcompiler", "-fPIC", "-gencode", only, "-cudart", "shared"]
    nvcc = home.home / "bin" / "nvcc"
    link = ["-L", str(home.home / "lib64"), "-o", str(out), str(source)]
    subprocess.run([nvcc, *words, *link], check=True)
    return out


def test_an_extension_for_sm_120_is_native_there_and_the_same_for_sm_90_is_not(
    wheels: Toolkit, tmp_path: Path
) -> None:
    assert wheels.cuda == "13.0"
    blackwell = library.read(compiled(wheels, tmp_path, "sm_120"), "blackwell.so", Arch(120))
    assert blackwell.status is Status.NATIVE
    assert blackwell.all_native
    assert "libcudart.so.13" in blackwell.needed
    hopper = library.read(compiled(wheels, tmp_path, "sm_90"), "hopper.so", Arch(120))
    assert hopper.status is Status.NONE
    assert hopper.sass == ("sm_90",)
    assert library.read(tmp_path / "sm_90.so", "hopper.so", Arch(90)).status is Status.NATIVE


def test_the_audit_command_reads_the_extension_as_cuobjdump_does(
    wheels: Toolkit, tmp_path: Path
) -> None:
    compiled(wheels, tmp_path, "compute_120f")
    out = tmp_path / "audit.json"
    command = [sys.executable, "-m", "pinproof", "audit", str(tmp_path), "--compare"]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(out.read_text())["audits"][0]["libraries"]
    assert found["disagreement"] == ""
    assert (found["status"], found["driver"]) == ("PTX-JIT", "R580 or newer")


def test_the_same_compiler_laid_out_as_conda_forge_does_compiles_with_the_compiler_beside_it(
    wheels: Toolkit, tmp_path: Path
) -> None:
    prefix, target = tmp_path / "env", tmp_path / "env" / "targets" / "x86_64-linux"
    for part in (prefix / "conda-meta", target):
        part.mkdir(parents=True)
    shutil.copytree(wheels.home / "bin", prefix / "bin")
    for there, here in (("nvvm", prefix / "nvvm"), ("include", target / "include")):
        here.symlink_to((wheels.home / there).resolve())
    (target / "lib").symlink_to(wheels.home / "lib64")
    for name in ("gcc", "g++"):
        own = prefix / "bin" / f"x86_64-conda-linux-gnu-{name}"
        own.symlink_to(str(shutil.which(name)))
    found = toolkit.of_conda(prefix, tmp_path / "cuda")
    assert found is not None
    assert (found.home / "include" / "cuda_runtime.h").is_file()
    variables = found.variables()
    assert Path(variables["CC"]).name == "x86_64-conda-linux-gnu-gcc"
    assert variables["CUDAHOSTCXX"] == found.cxx
    built = library.read(compiled(found, tmp_path, "sm_120"), "blackwell.so", Arch(120))
    assert built.status is Status.NATIVE


def test_an_environment_without_nvcc_is_no_toolkit(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    assert toolkit.of_conda(tmp_path, tmp_path / "cuda") is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    (tmp_path / "conda-meta").rmdir()
    assert toolkit.of_conda(tmp_path, tmp_path / "cuda") is None
