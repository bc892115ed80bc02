"""Compile the reference's launches for every architecture that we ship, with no GPU.

    python tests/attention/compile_kernel.py --json results/compile/triton-VERSION.json

compiles every distinct launch of the suite; test_compile.py only a few that have every feature.
Children do it, since Triton either compiles or interprets for the life of a process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pinproof_cell.call import Call
from pinproof_cell.document import write
from pinproof_cell.kernels import plan
from pinproof_cell.kernels.launch import Launch
from pinproof_cell.kernels.tiles import SM120_SHARED, Machine
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.suite.grid import suite
from pinproof_cell.throughput.workload import GPU_POINTS
from pinproof_cell.world import child

#: How long all of it may take, in seconds.
PATIENCE = 3600

#: Shared memory that one block may ask for, in bytes (CUDA programming guide, table of limits),
#: and multiprocessors.
MACHINES = {
    "sm_80": Machine(166_912, 108),
    "sm_90": Machine(232_448, 132),
    "sm_100": Machine(232_448, 148),
    "sm_120": Machine(SM120_SHARED, 170),
}
#: One 16-bit type stands for both: it changes one instruction.
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}


@dataclass(frozen=True)
class Configuration:
    """One distinct launch, named after the first call that makes it."""

    name: str
    launch: Launch
    source: tuple[dict[str, Any], dict[tuple[int, ...], Any], dict[tuple[int, ...], Any]]


#: What changes the code of a kernel. The other features are numbers to it, or memory that it sees
#: as strides, and both 16-bit types are one here.
SEEN = FEATURES - {
    *("fp16", "bf16", "deterministic", "lse", "one-key", "no-keys", "no-queries", "empty-rows"),
    *("empty-sequences", "page-small", "page-16", "page-64", "page-256", "strided", "expanded"),
    *("causal-rectangular", "unaligned-head", "strided-head"),
}
#: The modes that are compiled for an architecture. REF is for the smallest GPU alone, since its
#: tiles are the same everywhere.
MODES = {name: ("ref", "fast") if name == "sm_120" else ("fast",) for name in MACHINES}


def configurations(architecture: str, *, chosen: bool = False) -> dict[str, Configuration]:
    """Return the distinct launches of the suite and of the throughput points, by name.

    With `chosen` those of a few cases, which have every feature, in the modes by turns.
    """
    modes = MODES[architecture]
    named: list[tuple[str, tuple[str, Call, torch.Tensor | None]]]
    if chosen:
        turns = zip(cycle(modes), cover(architecture), strict=False)
        named = [(mode, each) for mode, case in turns for each in calls([case])]
    else:
        everything = [*calls(suite("full", "cuda")), *points()]
        named = [(mode, each) for mode in modes for each in everything]
    found: dict[str, Configuration] = {}
    for mode, (name, call, keep) in named:
        for launch in launches(call, keep, mode, MACHINES[architecture]):
            size = launch.tiles
            signature, constants, attributes = source(launch)
            key = f"{launch.kernel.__name__} {signature} {constants} {attributes} {size}"
            tiles = f"{size.block_m}x{size.block_n}-w{size.warps}-s{size.stages}"
            full = f"{architecture}-{mode}-{launch.kernel.__name__}-{tiles}-{name}"
            found.setdefault(key, Configuration(full, launch, (signature, constants, attributes)))
    return {each.name: each for each in found.values()}


def cover(seed: str) -> list[Case]:
    """Return a few cases of the suite that have all features of `SEEN` between them.

    The most new features first; among equals the cheapest, and then `seed` decides.
    """
    cases = list(suite("full", "cuda"))
    random.Random(seed).shuffle(cases)
    left = SEEN & frozenset[str]().union(*(case.features for case in cases))
    found = []
    while left:
        best = max(cases, key=lambda case: (len(case.features & left), -cost(case)))
        found.append(best)
        left -= best.features
    return found


def cost(case: Case) -> float:
    """Return roughly how long a case compiles: wide heads and gradients take longest."""
    return (1 + max(case.head_dim, case.dim_v) / 64) * (4 if case.backward else 1)


def calls(cases: Iterable[Case]) -> Iterator[tuple[str, Call, torch.Tensor | None]]:
    """Yield calls on torch's device "meta", each with a name and the mask of its dropout."""
    for case in cases:
        call = inputs.generate(case, 0, "meta")
        rows, keys = call.q.shape[-3], call.k.shape[1] if call.layout is None else call.layout.max_k
        batch = call.q.shape[0] if call.layout is None else 1
        shape = (batch, case.heads, rows, keys)
        keep = torch.empty(shape, dtype=torch.bool, device="meta") if call.dropout else None
        yield case.id, call, keep
        if case.backward:
            yield f"{case.id}-gradients", replace(call, q=call.q.requires_grad_()), keep


def points() -> Iterator[tuple[str, Call, torch.Tensor | None]]:
    """Yield the calls whose speed is measured."""
    for point in GPU_POINTS:
        shape_q = (point.batch, point.seqlen_q, point.heads, point.head_dim)
        shape_k = (point.batch, point.seqlen_k, point.heads_k, point.head_dim)
        q, k, v = (
            torch.empty(shape, dtype=torch.bfloat16, device="meta")
            for shape in (shape_q, shape_k, shape_k)
        )
        yield point.name, Call(q=q, k=k, v=v, **point.keywords), None


def launches(
    call: Call, keep: torch.Tensor | None, mode: str, machine: Machine
) -> Iterator[Launch]:
    """Yield the launches of a call, or of its gradients where q asks for them."""
    out, lse, forward = plan.forward(call, keep, mode, machine)
    if not call.q.requires_grad:
        yield from forward
        return
    yield from plan.backward(out, call, out, lse, keep, mode, machine)[1]


def source(launch: Launch) -> tuple[dict[str, Any], dict[tuple[int, ...], Any], dict[Any, Any]]:
    """Return signature, constants and attributes of a launch, as Triton's launcher has them."""
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}

    def special(value: Any, path: tuple[int, ...], number: bool) -> Any:
        if isinstance(value, tuple):
            parts = (special(x, (*path, index), number) for index, x in enumerate(value))
            return type(value)(*parts)
        if isinstance(value, float):
            return "fp32"
        if isinstance(value, torch.Tensor):
            attributes[path] = [["tt.divisibility", 16]]
            return TYPES[value.dtype]
        if value is None or (value == 1 and not number):
            constants[path] = value
            return "constexpr"
        if value % 16 == 0 and not number:
            attributes[path] = [["tt.divisibility", 16]]
        return "i32" if -(2**31) <= value < 2**31 else "i64"

    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr:
            constants[(index,)] = value
            signature[parameter.name] = "constexpr"
        else:
            signature[parameter.name] = special(value, (index,), parameter.do_not_specialize)
    return signature, constants, attributes


def compiled(architecture: str, configuration: Configuration) -> dict[str, Any]:
    """Compile one configuration; returns its shared memory and the size of its code, in bytes."""
    built = triton.compile(
        ASTSource(configuration.launch.kernel, *configuration.source),
        target=GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32),
        options=configuration.launch.options,
    )
    return {"shared": built.metadata.shared, "code": len(built.asm["cubin"])}


def share(number: int, of: int, *, chosen: bool) -> None:
    """Print a line for each configuration of a share of them, flushed, so that a crash shows."""
    everything = (
        (architecture, configuration)
        for architecture in MACHINES
        for configuration in configurations(architecture, chosen=chosen).values()
    )
    for index, (architecture, configuration) in enumerate(everything):
        if index % of != number:
            continue
        started = time.process_time()
        try:
            answer = compiled(architecture, configuration)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        answer["seconds"] = round(time.process_time() - started, 2)
        line = {"architecture": architecture, "name": configuration.name, **answer}
        print(json.dumps(line), flush=True)


def everything(jobs: int, *, chosen: bool) -> list[dict[str, Any]]:
    """Compile all configurations, or the `chosen`, in children that do not interpret."""
    environment = child.environment("sm_120")
    environment.pop("TRITON_INTERPRET", None)
    words = [sys.executable, __file__, *(["--chosen"] if chosen else [])]
    children = [
        subprocess.Popen(
            [*words, "--share", str(number), str(jobs)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(jobs)
    ]
    found = []
    with ThreadPoolExecutor(jobs) as pool:
        outputs = list(pool.map(lambda process: process.communicate(timeout=PATIENCE), children))
    for process, (said, wrong) in zip(children, outputs, strict=True):
        found += map(json.loads, said.splitlines())
        if process.returncode:
            last = found[-1]["name"] if found else "nothing"
            error = f"status {process.returncode} after {last}: {wrong[-1000:]}"
            found.append({"name": "a child", "error": error})
    return found


def wrong(found: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return, by name, what does not compile or does not fit into the shared memory of a block."""
    return {
        each["name"]: each.get("error", f"{each.get('shared')} bytes of shared memory")
        for each in found
        if "error" in each
        or each["shared"] > MACHINES[each["architecture"]].shared
        or not each["code"]
    }


def main() -> int:
    """Compile, write what came of it, and name what is wrong; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the result is written")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--chosen", action="store_true", help="a few cases with every feature")
    parser.add_argument("--share", type=int, nargs=2, help="of a child")
    options = parser.parse_args()
    if options.share:
        share(*options.share, chosen=options.chosen)
        return 0
    found = everything(options.jobs, chosen=options.chosen)
    failed = wrong(found)
    document = {
        "triton": triton.__version__,
        "chosen": options.chosen,
        "limits": {name: machine.shared for name, machine in MACHINES.items()},
        "wrong": failed,
        "launches": sorted(found, key=lambda each: each["name"]),
    }
    if options.json:
        write(options.json, document)
    print("\n".join(f"{name}: {why}" for name, why in failed.items()))
    print(f"{len(found)} launches, {len(failed)} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
