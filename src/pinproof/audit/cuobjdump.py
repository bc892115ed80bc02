"""NVIDIA's cuobjdump, as a second reader: what it lists of a library must be what ours lists."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pinproof.audit.arch import Code, Kind
from pinproof.audit.fatbin import Unit
from pinproof.errors import ConfigurationError
from pinproof.run import process

#: Where toolkits lie that are on no PATH.
_TOOLKITS = "/usr/local/cuda/bin"

_ENTRY = re.compile(r"Fatbin (elf|ptx) code:\n=+\narch = (sm_\w+)\ncode version = \[(\d+),(\d+)\]")
_KINDS = {"elf": Kind.SASS, "ptx": Kind.PTX}

Entry = tuple[Kind, str, tuple[int, int]]


def find() -> Path:
    """Return cuobjdump: of the wheel nvidia-cuda-cuobjdump, of triton's, of PATH or a toolkit.

    Raises ConfigurationError where there is none.
    """
    found = next(_candidates(), None)
    if found is None:
        raise ConfigurationError(
            "cuobjdump is not here, so there is nothing to compare with",
            remedy="pip install nvidia-cuda-cuobjdump",
        )
    return found


def _candidates() -> Iterator[Path]:
    for package, below in (("nvidia", "*/bin"), ("triton", "backends/nvidia/bin")):
        spec = importlib.util.find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            yield from sorted(Path(place).glob(f"{below}/cuobjdump"))
    for path in (None, _TOOLKITS):
        if on_path := shutil.which("cuobjdump", path=path):
            yield Path(on_path)


def differs(cuobjdump: Path, library: Path, units: Iterable[Unit]) -> str:
    """Say how the listing of `library` by cuobjdump differs from `units`, or "".

    What cuobjdump itself cannot read is told in its words: a new one refuses some old code.
    """
    done = process.run([cuobjdump, library], keep=100_000_000)
    if not done.ok and "does not contain device code" not in done.output:
        return done.output.strip().rpartition("\n")[2] or "cuobjdump ended without a word"
    theirs = [
        (_KINDS[kind], arch, (int(major), int(minor)))
        for kind, arch, major, minor in _ENTRY.findall(done.output)
    ]
    ours = [_entry(code) for unit in units for code in unit if code.kind is not Kind.OTHER]
    if ours == theirs:
        return ""
    pairs = zip(ours, theirs, strict=False)
    at = next((n for n, (one, other) in enumerate(pairs) if one != other), None)
    where = f"they part at entry {at}" if at is not None else "one is longer"
    return f"cuobjdump lists {len(theirs)} pieces of code and we {len(ours)}: {where}"


def _entry(code: Code) -> Entry:
    return code.kind, str(code.arch), code.version
