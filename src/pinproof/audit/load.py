"""Loads a library in a child, with all its symbols bound: what an import would say, said early.

Where the machine has no driver, a stub stands in for ``libcuda.so.1``: a library of functions that
all answer CUDA_ERROR_NO_DEVICE, under the driver's names. So a library that links to the driver
can be loaded on a machine without a GPU, and nothing can be computed by mistake.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from pinproof.audit import elf
from pinproof.run import process

#: Longest time of one child, in seconds; importing torch from a cold disk has taken a minute.
TIMEOUT = 180.0

DRIVER = "libcuda.so.1"

#: CUDA_ERROR_NO_DEVICE of cuda.h.
_NO_DEVICE = 100

_CHILD = """
import ctypes, importlib.machinery, importlib.util, json, os, re, sys
stub, with_torch, path = sys.argv[1:]
try:
    ctypes.CDLL("libcuda.so.1", ctypes.RTLD_GLOBAL)
except OSError:
    if stub:
        ctypes.CDLL(stub, ctypes.RTLD_GLOBAL)
error = ""
try:
    if with_torch == "1":
        import torch
    name = os.path.basename(path).partition(".")[0]
    library = ctypes.CDLL(path, os.RTLD_NOW)
    if hasattr(library, "PyInit_" + name):
        loader = importlib.machinery.ExtensionFileLoader(name, path)
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        importlib.util.module_from_spec(spec)
except BaseException as failure:
    error = f"{type(failure).__name__}: {failure}"
print("\\n" + json.dumps(error), flush=True)
os._exit(0)
"""


def make_stub(libraries: Iterable[Path], into: Path) -> Path | None:
    """Compile a stand-in for the driver with what `libraries` want of it, into `into`.

    None where none of them links to the driver, or this machine has no C compiler.
    Raises DamagedError where a library cannot be read.
    """
    names: set[str] = set()
    for path in libraries:
        with path.open("rb") as stream:
            if DRIVER in elf.read(stream).needed:
                undefined = elf.symbols(stream).undefined
                names |= {
                    name for name in undefined if name.startswith("cu") and name[2:3].isupper()
                }
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not names or compiler is None:
        return None
    source, stub = into / "stub.c", into / DRIVER
    lines = [f"int {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in sorted(names)]
    source.write_text("".join(lines), encoding="utf-8")
    words = ("-shared", "-fPIC", f"-Wl,-soname,{DRIVER}", "-o", str(stub), str(source))
    return stub if process.run([compiler, *words], timeout=TIMEOUT).ok else None


def try_load(python: Path, library: Path, *, stub: Path | None, with_torch: bool) -> str:
    """Load `library` in a child of `python`, and return why that failed, or "".

    An extension module is initialised as an import would do; its package is not.
    """
    arguments = (str(stub or ""), "1" if with_torch else "0", str(library.absolute()))
    done = process.run([python, "-c", _CHILD, *arguments], timeout=TIMEOUT)
    if done.timed_out:
        return f"no end after {done.seconds:.0f} s"
    if done.signal_name:
        return f"ended by {done.signal_name}"
    try:
        return str(json.loads(done.output.strip().rpartition("\n")[2]))
    except ValueError:
        return done.output.strip().rpartition("\n")[2] or f"ended with status {done.returncode}"
