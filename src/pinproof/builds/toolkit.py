"""The CUDA toolkit that a source build uses, as one CUDA_HOME: wheels, conda's, or the system's.

From CUDA 13 on, the package index has a whole compiler as wheels. The wheels of CUDA 12 hold the
assembler and the headers, and neither nvcc nor cudafe++ nor cicc: there the toolkit of the conda
environment that the cell stands on, or one of the system, has to be there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.run import process

#: The first CUDA whose compiler the package index has.
FIRST_OF_WHEELS = 13

#: What compiles an extension of torch, as extras of the package ``cuda-toolkit``: the compiler in
#: its four parts, the runtime, and the headers of the libraries that torch's headers include.
PARTS = (
    *("nvcc", "crt", "nvvm", "cccl", "cudart", "nvrtc", "nvtx", "profiler"),
    *("cublas", "cusparse", "cusolver", "curand", "cufft", "nvjitlink", "cupti"),
)
COMPILER = ("nvcc", "crt", "nvvm", "cccl", "cudart")

_VERSION = re.compile(r"release (\d+\.\d+), V(\d+\.\d+\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """A toolkit on disk: ``home`` is its CUDA_HOME, ``nvcc`` the compiler's version "13.0.88".

    ``compilers`` are the C and the C++ compiler that came with it, where some did.
    """

    home: Path
    nvcc: str
    compilers: tuple[Path, Path] | None = None

    @property
    def cuda(self) -> str:
        """The release that it belongs to: "13.0"."""
        return ".".join(self.nvcc.split(".")[:2])

    def variables(self) -> dict[str, str]:
        """Return the environment variables by which builds find it."""
        found = {"CUDA_HOME": str(self.home), "CUDACXX": str(self.home / "bin" / "nvcc")}
        if self.compilers is not None:
            # torch hands CC to nvcc as its host compiler, CMake the third.
            c, cxx = map(str, self.compilers)
            found |= {"CC": c, "CXX": cxx, "CUDAHOSTCXX": cxx}
        return found

    @property
    def cxx(self) -> str:
        """The C++ compiler for the host's part of the code: its own, else g++ of the PATH."""
        return str(self.compilers[1]) if self.compilers else "g++"


def has_wheels(cuda: str) -> bool:
    """Say if the package index has the compiler of that release ("13.0")."""
    major = cuda.partition(".")[0]
    return major.isdigit() and int(major) >= FIRST_OF_WHEELS


def requirement(cuda: str, parts: tuple[str, ...] = PARTS) -> str:
    """Return what to install to have the toolkit of a release ("13.0") as wheels.

    Raises ConfigurationError for a release whose wheels hold no compiler.
    """
    if not has_wheels(cuda):
        raise ConfigurationError(
            f"the wheels of CUDA {cuda} hold no nvcc",
            cause="the package index has the whole compiler from CUDA 13.0 on",
            remedy=f"install the toolkit of CUDA {cuda}, and name it with CUDA_HOME",
        )
    release = ".".join(cuda.split(".")[:2])
    return f"cuda-toolkit[{','.join(parts)}]=={release}.*"


def wanted(cuda: str, caller: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a build's environment has to install to have a toolkit: nothing if one is here.

    Raises ConfigurationError where neither this machine nor the index has it.
    """
    try:
        of_system("" if cuda == "installed" else cuda, caller)
    except ConfigurationError:
        if has_wheels(cuda):
            return (requirement(cuda),)
        raise
    return ()


def caller(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what names a toolkit in an environment."""
    return {name: environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)}


def lay_out(site_packages: Path, into: Path) -> Toolkit:
    """Make one CUDA_HOME in `into` out of the wheels that are installed in `site_packages`.

    Its parts are links, but for ``lib64``: the wheels hold ``libcudart.so.13`` alone, and a linker
    asks for ``libcudart.so``. Raises ConfigurationError where no compiler is installed there.
    """
    found = sorted(site_packages.glob("nvidia/cu*/bin/nvcc"))
    if not found:
        raise ConfigurationError(
            f"{site_packages} holds no nvcc",
            remedy="install cuda-toolkit[nvcc,crt,nvvm,cccl,cudart]",
        )
    wheels = found[-1].parents[1]
    (into / "lib64").mkdir(parents=True, exist_ok=True)
    for part in ("bin", "include", "nvvm"):
        _link(into / part, wheels / part)
    for library in sorted((wheels / "lib").glob("lib*")):
        _link(into / "lib64" / library.name, library)
        if ".so." in library.name:
            _link(into / "lib64" / f"{library.name.partition('.so.')[0]}.so", library)
    _link(into / "lib", into / "lib64")
    return at(into)


def of_conda(prefix: Path, into: Path) -> Toolkit | None:
    """Make one CUDA_HOME in `into` of the conda environment `prefix`; None where it has no nvcc.

    conda-forge keeps headers and libraries in ``targets/``, by architecture, where torch does not
    look. Its compilers have names with the architecture in them. Raises ConfigurationError where
    the nvcc does not run.
    """
    if not (prefix / "conda-meta").is_dir() or not (prefix / "bin" / "nvcc").is_file():
        return None
    targets = sorted((prefix / "targets").glob("*/include"))
    base = targets[0].parent if targets else prefix
    into.mkdir(parents=True, exist_ok=True)
    for part, there in (
        ("bin", prefix / "bin"),
        ("nvvm", prefix / "nvvm"),
        ("include", base / "include"),
        ("lib64", base / "lib"),
        ("lib", base / "lib"),
    ):
        _link(into / part, there)
    c, cxx = (sorted((prefix / "bin").glob(f"*-conda-linux-gnu-{name}")) for name in ("gcc", "g++"))
    return replace(at(into), compilers=(c[0], cxx[0]) if c and cxx else None)


def at(home: Path) -> Toolkit:
    """Look at the toolkit in `home`. Raises ConfigurationError where there is none that runs."""
    nvcc = home / "bin" / "nvcc"
    try:
        told = process.run([nvcc, "--version"], timeout=60)
    except OSError as error:
        raise ConfigurationError(f"{nvcc} cannot be started: {error.strerror}") from None
    match = _VERSION.search(told.output)
    if match is None:
        raise ConfigurationError(
            f"{nvcc} does not tell its version", cause=told.output.strip()[-200:]
        )
    return Toolkit(home=home, nvcc=match[2])


def of_system(cuda: str, caller: Mapping[str, str]) -> Toolkit:
    """Return the toolkit of a release ("12.8") that this machine has; "" takes any.

    Raises ConfigurationError where there is none, with what was found instead.
    """
    seen = []
    for home in _homes(cuda, caller):
        if (home / "bin" / "nvcc").is_file() and (home / "include" / "cuda_runtime.h").is_file():
            toolkit = at(home)
            if not cuda or toolkit.cuda == cuda:
                return toolkit
            seen.append(f"{toolkit.cuda} in {home}")
    raise ConfigurationError(
        f"this machine has no toolkit of CUDA {cuda}".rstrip(),
        cause=f"there is {', '.join(seen)}" if seen else "no nvcc was found",
        remedy="install it, and name its directory with CUDA_HOME",
    )


def of_torch(packages: Mapping[str, str]) -> str:
    """Return the major release of CUDA that the torch among `packages` is for, "" if unknown."""
    local = re.search(r"\+cu(\d\d)\d$", packages.get("torch", ""))
    if local:
        return local[1]
    majors = set()
    for name, version in packages.items():
        if match := re.fullmatch(r"nvidia-cuda-runtime(?:-cu(\d\d))?", name):
            majors.add(match[1] or version.partition(".")[0])
    # Where other packages bring another one, it is not known which is torch's.
    return majors.pop() if len(majors) == 1 else ""


def check(toolkit: Toolkit, packages: Mapping[str, str]) -> None:
    """Refuse a toolkit of another major release than torch's: what it builds does not load.

    Raises ConfigurationError.
    """
    major = of_torch(packages)
    if major and toolkit.cuda.partition(".")[0] != major:
        raise ConfigurationError(
            f"torch {packages['torch']} is of CUDA {major}, and the toolkit in {toolkit.home} of"
            f" {toolkit.cuda}",
            cause="code for two major releases of CUDA does not load together",
            remedy=f"name a toolkit of CUDA {major} with CUDA_HOME, or choose another torch",
        )


def installed(caller: Mapping[str, str]) -> str:
    """Return the release of the toolkit that this machine has ("13.0"), "" where it has none."""
    try:
        return of_system("", caller).cuda
    except ConfigurationError:
        return ""


def _homes(cuda: str, caller: Mapping[str, str]) -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"):
        if caller.get(name):
            yield Path(caller[name])
    if cuda:
        yield Path(f"/usr/local/cuda-{cuda}")
    yield Path("/usr/local/cuda")
    if on_path := shutil.which("nvcc", path=caller.get("PATH", os.defpath)):
        yield Path(on_path).resolve().parents[1]


def _link(link: Path, to: Path) -> None:
    """Make a link, whole at any moment: two builds may lay out one toolkit at once."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        if link.is_symlink() and link.readlink() == to:
            return
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(to)
        fresh.replace(link)
    except OSError as error:
        raise InfrastructureError(f"{link} cannot be made: {error.strerror}") from None
