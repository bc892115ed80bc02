"""Facts of the device that a cell runs on, also where torch is broken or absent."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from pinproof_cell.world import nvml

GIB = 2**30


def facts(target: str) -> dict[str, Any]:
    """Describe the device for `target`: kind, name, capability, driver, memory in GiB.

    A target that asks for a GPU gets the CPU's facts where there is none: the host compares the
    capability with what it asked for. torch is asked first, since it decides what runs; then
    ``nvidia-smi``. Never raises for a torch that does not import.
    """
    if target == "cpu":
        return _processor()
    return _from_torch() or _from_smi() or _processor()


def _processor() -> dict[str, Any]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "kind": "cpu",
        "name": _processor_name(),
        "capability": "cpu",
        "driver": None,
        "memory_gib": round(pages / GIB, 1),
        "threads": len(os.sched_getaffinity(0)),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _from_torch() -> dict[str, Any] | None:
    try:
        import torch

        if not torch.cuda.is_available():
            return None
        properties = torch.cuda.get_device_properties(0)
    except Exception:  # a broken torch fails in any way; its import is evidence elsewhere
        return None
    return {
        "kind": "cuda",
        "name": properties.name,
        "capability": f"sm_{properties.major}{properties.minor}",
        "driver": nvml.driver() or (_from_smi() or {}).get("driver"),
        "memory_gib": round(properties.total_memory / GIB, 1),
        "seen_by_torch": True,
    }


def _from_smi() -> dict[str, Any] | None:
    query = "name,compute_cap,driver_version,memory.total"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_smi(done.stdout)


def parse_smi(text: str) -> dict[str, Any] | None:
    """Read the first device of nvidia-smi's CSV; None where a line does not look like one."""
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != 4:
            return None
        name, capability, driver, memory = (part.strip() for part in row)
        try:
            gib = round(float(memory) / 1024, 1)
        except ValueError:
            gib = None
        return {
            "kind": "cuda",
            "name": name,
            "capability": f"sm_{capability.replace('.', '')}",
            "driver": driver,
            "memory_gib": gib,
            "seen_by_torch": False,
        }
    return None
