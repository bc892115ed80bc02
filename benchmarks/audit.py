"""`pinproof audit` against cuobjdump on the libraries of a vLLM wheel, in interleaved pairs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.checkout import ROOT
from benchmarks.claim import Claim, median
from pinproof.audit import cuobjdump, library, subject
from pinproof.locks import download
from pinproof.locks.download import Target
from pinproof.run import process

WHEEL = Requirement("vllm==0.33.0")
FOR = Target(python="3.12", platform="x86_64-manylinux_2_35")
PAIRS = 5
MOST = 1.5


def measure(scratch: Path) -> Claim:
    """Read the wheel's libraries with both; the first pair warms the caches and does not count.

    Of cuobjdump the cheaper half counts, the list of the machine code; the audit also hashes every
    library, counts its symbols of torch, and pays for its start.
    """
    tool = cuobjdump.find()
    (scratch / "wheel").mkdir()
    wheel = download.wheel(WHEEL, FOR, scratch / "wheel")
    tree = subject.unpacked(wheel, scratch / "tree")
    libraries = sorted(tree.rglob("*.so"))
    unequal = [each.name for each in libraries if not _agree(tool, each)]
    pairs = [(_ours(tree), _theirs(tool, libraries)) for _ in range(PAIRS + 1)][1:]
    ratio = median([one / other for one, other in pairs])
    here, there = (median([pair[side] for pair in pairs]) for side in (0, 1))
    size = sum(each.stat().st_size for each in libraries) / 1e6
    return Claim(
        name="audit",
        asked=f"within {MOST} x of cuobjdump on the same libraries, and the same code listed",
        seen=f"{ratio:.2f} x ({here:.2f} s against {there:.2f} s, {len(libraries)} libraries of"
        f" {size:.0f} MB, {PAIRS} pairs); read otherwise: {len(unequal)}",
        held=ratio <= MOST and not unequal,
        data={"ratio": ratio, "pairs": pairs, "unequal": unequal},
    )


def _agree(tool: Path, path: Path) -> bool:
    return not cuobjdump.differs(tool, path, library.code_of(path)[0])


def _ours(tree: Path) -> float:
    command = [sys.executable, "-m", "pinproof", "audit", str(tree)]
    done = process.run(command, env=process.inherited(PYTHONPATH=str(ROOT / "src")))
    if not done.ok:
        raise RuntimeError(done.output)
    return done.seconds


def _theirs(tool: Path, libraries: list[Path]) -> float:
    began = time.monotonic()
    for each in libraries:
        process.run([tool, "--list-elf", each])
    return time.monotonic() - began
