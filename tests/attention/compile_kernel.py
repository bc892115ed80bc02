"""Compile the reference for one architecture with no GPU: a JSON line per configuration.

A child of test_compile.py, since Triton either compiles or interprets for the life of a process.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pinproof_cell.kernels import backward as kernel_backward
from pinproof_cell.kernels import forward as kernel
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.grid import PLAIN

#: Shared memory that one block may ask for, in bytes (CUDA programming guide, table of limits).
SHARED = {"sm_80": 166_912, "sm_90": 232_448, "sm_120": kernel.SM120_SHARED}
ELEMENT = {"fp16": "*fp16", "bf16": "*bf16", "fp32": "*fp32"}


def configurations(architecture: str) -> dict[str, dict[str, Any]]:
    """Return the distinct launches of the suite, and the probe's long ones, by a readable name.

    One 16-bit type stands for both: it changes one instruction. REF is compiled for the smallest
    GPU alone, since its tiles are the same everywhere.
    """
    long = [Case(16384, 16384, dim, causal=causal) for dim in (64, 128) for causal in (True, False)]
    wide = Case(16384, 16384, 256)
    found: dict[str, dict[str, Any]] = {}
    for case in (*(replace(case, dtype="bf16") for case in PLAIN), *long, wide):
        for mode in ("ref", "fast") if architecture == "sm_120" else ("fast",):
            size = kernel.tiles(
                mode=mode,
                head_dim=case.head_dim,
                causal=case.causal,
                seqlen_k=case.seqlen_k,
                shared=SHARED[architecture],
            )
            left, right = case.window[0] >= 0, case.causal or case.window[1] >= 0
            asked = (("left", left), ("right", right), ("softcap", case.softcap > 0))
            masks = [word for word, used in (*asked, ("alibi", case.alibi)) if used]
            name = (
                f"{architecture}-{mode}-d{case.head_dim}-{'-'.join(masks) or 'full'}-"
                f"{size.block_m}x{size.block_n}-w{size.warps}-s{size.stages}"
            )
            found[name] = {"case": case, "mode": mode, "size": size, "left": left, "right": right}
    return found | backward(architecture)


def backward(architecture: str) -> dict[str, dict[str, Any]]:
    """Return launches of the backward kernels: every width of tile, every mask."""
    cases = {
        "causal-softcap-alibi": Case(64, 64, causal=True, softcap=15.0, alibi=True),
        "causal-left": Case(64, 64, 111, causal=True, window=(33, 0)),
        "full": Case(64, 64, 256),
    }
    modes = ("ref", "fast") if architecture == "sm_120" else ("fast",)
    found: dict[str, dict[str, Any]] = {}
    for (word, case), mode in itertools.product(cases.items(), modes):
        for walk in ("keys", "queries"):
            size = kernel_backward.tiles(
                mode=mode, kernel=walk, head_dim=case.head_dim, shared=SHARED[architecture]
            )
            name = (
                f"{architecture}-backward-{walk}-{mode}-d{case.head_dim}-{word}-"
                f"{size.block_m}x{size.block_n}-w{size.warps}-s{size.stages}"
            )
            left, right = case.window[0] >= 0, case.causal
            found[name] = {"case": case, "mode": mode, "size": size, "left": left, "right": right}
            found[name]["kernel"] = getattr(kernel_backward, f"gradient_of_{walk}")
    size = kernel.Tiles(64, 0, 4, 1)
    found[f"{architecture}-backward-delta-d111"] = {
        "case": cases["causal-left"], "mode": "fast", "size": size, "left": False, "right": False,
        "kernel": kernel_backward.delta,
    }  # fmt: skip
    return found


def compiled(architecture: str, configuration: dict[str, Any]) -> dict[str, Any]:
    """Compile one configuration; returns its shared memory and the size of its code, in bytes."""
    case, size = configuration["case"], configuration["size"]
    function = configuration.get("kernel", kernel.forward)
    constants = {
        "HAS_LEFT": configuration["left"],
        "HAS_RIGHT": configuration["right"],
        "HAS_SOFTCAP": case.softcap > 0,
        "HAS_ALIBI": case.alibi,
        "UPCAST": configuration["mode"] == "ref",
        "SPLIT": configuration["mode"] == "fast",
        "HEAD": case.head_dim,
        "HEAD_V": case.head_dim,
        "BLOCK_M": size.block_m,
        "BLOCK_N": size.block_n,
        "BLOCK_D": kernel.padded(case.head_dim),
        "BLOCK_DV": kernel.padded(case.head_dim),
    }
    # As a launch specialises them: the last stride is 1, the others divisible by 16 or not.
    constants |= {f"stride_{name}d": 1 for name in ("q", "k", "v", "o", "g", "dq", "dk", "dv")}
    if not case.alibi:
        constants |= {"Slopes": None}
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    signature, attributes = {}, {}
    for index, name in enumerate(function.arg_names):
        signature[name] = "constexpr" if name in constants else _type(name, case.dtype)
        stride = name.startswith("stride") and case.head_dim % 16 == 0 and name not in constants
        if signature[name].startswith("*") or stride:
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constants, attributes)
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    built = triton.compile(
        source, target=target, options={"num_warps": size.warps, "num_stages": size.stages}
    )
    return {"shared": built.metadata.shared, "code": len(built.asm["cubin"])}


def _type(name: str, dtype: str) -> str:
    if name in ("Q", "K", "V", "Out", "DOut", "DQ", "DK", "DV"):
        return ELEMENT[dtype]
    if name in ("Lse", "Slopes", "Delta"):
        return "*fp32"
    return "fp32" if name in ("to_log2", "scale", "softcap") else "i32"


def main(architecture: str) -> None:
    """Print one line per configuration, flushed, so that a crash shows what it came to."""
    for name, configuration in configurations(architecture).items():
        try:
            answer = compiled(architecture, configuration)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps({"name": name, **answer}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
