"""Which compiled extensions this process has loaded: what was tested, by its path and its bytes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

#: The libraries of what is under test, wherever they come from: another copy has to show.
UNDER_TEST = re.compile(r"/(?:flash_attn[^/]*|vllm|flashinfer[^/]*)(?:/.*)?\.so(?:\.\d+)*$")

MAPS = Path("/proc/self/maps")


def extensions(maps: Path = MAPS) -> list[dict[str, Any]]:
    """Return path, size in bytes and sha256 of every library under test in the process's memory.

    `maps` is the kernel's list of what is mapped (proc(5)); where there is none, nothing is known.
    """
    try:
        lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    mapped = {line[line.index("/") :] for line in lines if "/" in line}
    paths = [Path(path) for path in sorted(mapped) if UNDER_TEST.search(path)]
    return [
        {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in paths
        if path.is_file()
    ]


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
