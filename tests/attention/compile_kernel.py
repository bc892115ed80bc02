"""Compile the reference's launches for an architecture with no GPU: a JSON line for each.

A child of test_compile.py, since Triton either compiles or interprets for the life of a process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pinproof_cell.call import Call
from pinproof_cell.kernels import plan
from pinproof_cell.kernels.launch import Launch
from pinproof_cell.kernels.tiles import SM120_SHARED, Machine
from pinproof_cell.suite import inputs
from pinproof_cell.suite.grid import suite
from pinproof_cell.throughput.workload import GPU_POINTS

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


def configurations(architecture: str) -> dict[str, Configuration]:
    """Return the distinct launches of the suite and of the throughput points, by name.

    REF is compiled for the smallest GPU alone, since its tiles are the same everywhere.
    """
    found: dict[str, Configuration] = {}
    for (name, call, keep), mode in (
        (named, mode)
        for named in calls()
        for mode in (("ref", "fast") if architecture == "sm_120" else ("fast",))
    ):
        for launch in launches(call, keep, mode, MACHINES[architecture]):
            size = launch.tiles
            signature, constants, attributes = source(launch)
            key = f"{launch.kernel.__name__} {signature} {constants} {attributes} {size}"
            tiles = f"{size.block_m}x{size.block_n}-w{size.warps}-s{size.stages}"
            full = f"{architecture}-{mode}-{launch.kernel.__name__}-{tiles}-{name}"
            found.setdefault(key, Configuration(full, launch, (signature, constants, attributes)))
    return {each.name: each for each in found.values()}


def calls() -> Iterator[tuple[str, Call, torch.Tensor | None]]:
    """Yield calls on torch's device "meta", each with a name and the mask of its dropout."""
    for case in suite("full", "cuda"):
        call = inputs.generate(case, 0, "meta")
        rows, keys = call.q.shape[-3], call.k.shape[1] if call.layout is None else call.layout.max_k
        batch = call.q.shape[0] if call.layout is None else 1
        shape = (batch, case.heads, rows, keys)
        keep = torch.empty(shape, dtype=torch.bool, device="meta") if call.dropout else None
        yield case.id, call, keep
        if case.backward:
            yield f"{case.id}-gradients", replace(call, q=call.q.requires_grad_()), keep
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


def main(share: str, shares: str) -> None:
    """Print a line for each configuration of a share of them, flushed, so that a crash shows."""
    everything = (
        (architecture, configuration)
        for architecture in MACHINES
        for configuration in configurations(architecture).values()
    )
    for index, (architecture, configuration) in enumerate(everything):
        if index % int(shares) != int(share):
            continue
        try:
            answer = compiled(architecture, configuration)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        line = {"architecture": architecture, "name": configuration.name, **answer}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
