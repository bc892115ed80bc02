"""GPU architectures, and which code runs on which of them.

Sources: "CUDA C++ Programming Guide", binary and PTX compatibility, family-specific features;
"PTX ISA", release history.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from pinproof.errors import ConfigurationError, did_you_mean

#: Every architecture that an nvcc of this decade knows.
KNOWN = (
    *(50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 88, 89, 90),
    *(100, 101, 103, 107, 110, 120, 121),
)

#: Systems on a chip: machine code is not compatible between these and the GPUs on cards.
EMBEDDED = (53, 62, 72, 87, 88, 101)


@dataclass(frozen=True, order=True, slots=True)
class Arch:
    """An architecture: 120 with suffix "" (sm_120), "a" (only 12.0) or "f" (the family 12.x)."""

    number: int
    suffix: str = ""

    @property
    def major(self) -> int:
        """The generation: 12 of sm_120."""
        return self.number // 10

    def __str__(self) -> str:
        return f"sm_{self.number}{self.suffix}"


def parse(text: str) -> Arch:
    """Return the GPU that a user names "sm_120", "120" or "12.0".

    Raises ConfigurationError for any other text, and for a suffix: code has one, a GPU has none.
    """
    match = re.fullmatch(r"(?:sm_)?(\d{1,3}|\d{1,2}\.\d)", text)
    number = int(match[1].replace(".", "")) if match else 0
    if number in KNOWN:
        return Arch(number)
    names = [str(Arch(each)) for each in KNOWN]
    raise ConfigurationError(
        f"{text!r} is no GPU architecture.{did_you_mean(text, names)}",
        cause="code may be built for sm_120a; the GPU itself is sm_120"
        if re.fullmatch(r"sm_\d+[af]", text)
        else "",
        remedy="name one of: " + ", ".join(names),
    )


class Kind(StrEnum):
    """What a piece of GPU code is: machine code, assembler for the driver, or something else."""

    SASS = "SASS"
    PTX = "PTX"
    OTHER = "other"


class Status(StrEnum):
    """How code meets a GPU. Members are ordered from best to worst."""

    NATIVE = "NATIVE"
    PTX_JIT = "PTX-JIT"
    NONE = "NONE"
    NO_GPU_CODE = "NO-GPU-CODE"
    UNREADABLE = "UNREADABLE"

    @property
    def rank(self) -> int:
        """Where the status stands, from 0 for the best."""
        return list(Status).index(self)


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of GPU code; ``version`` is the PTX version of PTX, the ELF ABI's of SASS."""

    kind: Kind
    arch: Arch
    version: tuple[int, int]

    def __str__(self) -> str:
        if self.kind is Kind.PTX:
            compute = str(self.arch).replace("sm", "compute")
            return f"{compute} (PTX {self.version[0]}.{self.version[1]})"
        return str(self.arch)


def status(code: Code, gpu: Arch) -> Status:
    """Say how one piece of code meets a GPU: NATIVE, PTX-JIT or NONE.

    Machine code runs on GPUs of its generation that are not older; PTX is compiled by the driver
    for any that is not older. With suffix "a" both are for exactly one GPU, with "f" for one
    generation.
    """
    if code.kind is Kind.OTHER or not _reaches(code, gpu):
        return Status.NONE
    return Status.NATIVE if code.kind is Kind.SASS else Status.PTX_JIT


def _reaches(code: Code, gpu: Arch) -> bool:
    arch = code.arch
    if arch.number == gpu.number:
        return True
    if arch.suffix == "a" or arch.number > gpu.number:
        return False
    if code.kind is Kind.SASS:
        on_chip = (arch.number in EMBEDDED) or (gpu.number in EMBEDDED)
        return arch.major == gpu.major and not on_chip
    return arch.suffix != "f" or arch.major == gpu.major


def cuda_of_ptx(version: tuple[int, int]) -> str:
    """Return the CUDA toolkit that first wrote this PTX version, such as "13.0" for 9.0.

    PTX 7.x came with CUDA 11.x, 8.x with 12.x and 9.x with 13.x. CUDA 12.6 kept PTX 8.5, so that
    12.7 has 8.6, and so on to 12.9. "" for what is older.
    """
    major, minor = version
    if major < 7:
        return ""
    return f"{major + 4}.{minor + 1 if major == 8 and minor >= 6 else minor}"
