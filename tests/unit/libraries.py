"""Real shared libraries made with the C compiler, with containers of GPU code written by hand."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[2] / "src"

PTX, SASS, LTO = 1, 2, 8
SPECIFIC, FAMILY = 0x100000, 0x200000


def entry(kind: int, number: int, flags: int = 0, version: tuple[int, int] = (9, 0)) -> bytes:
    """Return one piece of GPU code, as nvcc lays it out; the payload is nothing."""
    payload = bytes(24)
    head = (kind, 0x101, 64, len(payload), 0, 0, version[1], version[0], number)
    return struct.pack("<HHIQIIHHI8xQ16x", *head, flags) + payload


def container(*entries: bytes) -> bytes:
    """Return the container of one translation unit."""
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def make_library(
    path: Path,
    gpu: bytes = b"",
    *,
    exports: Iterable[str] = (),
    wants: Iterable[str] = (),
    needs: Iterable[Path] = (),
    soname: str = "",
) -> Path:
    """Compile a shared library that holds `gpu`, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"int {name}(void) {{ return 1; }}" for name in exports]
    lines += [f"extern int {name}(void);" for name in wants]
    calls = " + ".join([*(f"{name}()" for name in wants), "0"])
    lines.append(f"int call_{path.name.partition('.')[0]}(void) {{ return {calls}; }}")
    if gpu:
        text = ",".join(map(str, gpu))
        where = '__attribute__((section(".nv_fatbin"), used, aligned(8)))'
        lines.append(f"static const unsigned char code[] {where} = {{{text}}};")
    source = path.with_suffix(".c")
    source.write_text("\n".join(lines))
    words = ["gcc", "-shared", "-fPIC", "-Wl,--no-as-needed", "-o", str(path), str(source)]
    words += [str(each) for each in needs]
    words += [f"-Wl,-soname,{soname}"] if soname else []
    subprocess.run(words, check=True)
    source.unlink()
    return path


def install(site: Path, project: str, *files: str, gpu: bytes = b"") -> list[Path]:
    """Install a distribution of these libraries in a site directory, and return their paths."""
    about = site / f"{project.replace('-', '_')}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n")
    (about / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return [make_library(site / file, gpu) for file in files]


def inspected(*sites: Path) -> list[dict[str, Any]]:
    """Return what the cell's own code says of the libraries under test in these directories."""
    return _told(sites, "from pinproof_cell.world import inspection as i; told = [*i.extensions()]")


def loaded(*paths: Path) -> list[dict[str, Any]]:
    """Return what the cell's own code says of a process that has loaded these libraries."""
    load = f"import ctypes; [ctypes.CDLL(path) for path in {[str(path) for path in paths]}]"
    return _told((), f"{load}; from pinproof_cell.world import loaded; told = loaded.extensions()")


def _told(sites: Iterable[Path], program: str) -> list[dict[str, Any]]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*sites, SOURCES]))}
    words = [sys.executable, "-c", f"{program}; import json; print(json.dumps(told))"]
    done = subprocess.run(words, env=env, cwd="/", capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
