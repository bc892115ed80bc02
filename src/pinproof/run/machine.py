"""What this machine is: its GPU and driver, its processor, its compiler and C library."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pinproof.run import process


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine as far as a verdict depends on it.

    ``target`` is the architecture of its first GPU ("sm_90"), or "cpu". ``gpu`` and ``driver``
    are "" without one, ``gcc`` without a host compiler. ``memory_gib`` is the system's memory.
    """

    target: str
    gpu: str
    driver: str
    cpu: str
    cores: int
    memory_gib: float
    platform: str
    gcc: str = ""
    glibc: str = ""

    @property
    def versions(self) -> dict[str, str]:
        """What rules may ask of a machine, as far as it is known."""
        known = {"driver": self.driver, "gcc": self.gcc, "glibc": self.glibc}
        return {name: version for name, version in known.items() if version}

    def facts(self) -> dict[str, str]:
        """Return what evidence says of the machine that it was taken on."""
        return {
            "target": self.target,
            "gpu": self.gpu,
            "driver": self.driver,
            "cpu": self.cpu,
            "platform": self.platform,
        }

    def __str__(self) -> str:
        if self.gpu:
            return f"{self.gpu} ({self.target}), driver {self.driver}"
        return f"no GPU, {self.cores} x {self.cpu}"


@functools.cache
def this_machine() -> Machine:
    """Look at the machine: nvidia-smi for the GPU, /proc for the rest."""
    target, gpu, driver = _first_gpu()
    return Machine(
        target=target,
        gpu=gpu,
        driver=driver,
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        platform=f"{platform.system()} {platform.machine()} glibc {platform.libc_ver()[1]}",
        gcc=_gcc(),
        glibc=platform.libc_ver()[1],
    )


def _first_gpu() -> tuple[str, str, str]:
    """Return (target, name, driver) of the first visible GPU, or ("cpu", "", "")."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "cpu", "", ""
    query = [tool, "--query-gpu=compute_cap,name,driver_version", "--format=csv,noheader"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible:
        query += ["-i", visible]
    done = process.run(query, timeout=60)
    match = re.match(r"\s*(\d+)\.(\d+), (.+), ([\d.]+)\s*$", done.output.split("\n")[0])
    if not done.ok or match is None:
        return "cpu", "", ""
    major, minor, name, driver = match.groups()
    return f"sm_{major}{minor}", name, driver


def _gcc() -> str:
    """Return the version of the host compiler that nvcc would use, or ""."""
    tool = shutil.which("gcc")
    if tool is None:
        return ""
    done = process.run([tool, "-dumpfullversion"], timeout=60)
    version = done.output.strip()
    return version if done.ok and re.fullmatch(r"\d+(\.\d+)*", version) else ""


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1) if match else platform.machine()
