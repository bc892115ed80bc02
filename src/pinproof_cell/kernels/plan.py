"""What a call of attention launches: memory for the answer, tiles, and the launches in order.

Nothing runs here, and no GPU is asked: the tensors may be on torch's device "meta".
"""

from __future__ import annotations

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.kernels import backward as kernel_backward
from pinproof_cell.kernels import forward as kernel
from pinproof_cell.kernels import tiles
from pinproof_cell.kernels.launch import INTERPRETED, Launch
from pinproof_cell.kernels.memory import view
from pinproof_cell.kernels.problem import Problem, prepared
from pinproof_cell.kernels.tiles import DECODE, Machine, Tiles, padded

#: A tile costs the interpreter about the same whatever its size: few large ones are fastest.
INTERPRETED_TILES = Tiles(128, 128, 1, 1)


def careful(call: Call, mode: str) -> bool:
    """Return whether all is computed in float32, as in mode "ref" and for float32 inputs.

    So it is where V is narrower than K: with Triton 3.6 on an H100 mode "fast" gave wrong outputs
    for head dimensions 64 and 144 with V of 16 and 32, and right ones in Triton's interpreter.
    With 64 and 16 those were wrong whose loops over keys had one stage, and one accessed memory
    that is not there; where the loads of all loops were pipelined they were right.
    """
    narrow = call.v.shape[-1] < call.q.shape[-1]
    return mode == "ref" or narrow or call.q.dtype == torch.float32


def stored(dtype: torch.dtype) -> torch.dtype:
    """Return the type that kernels write for an answer in `dtype`.

    The interpreter truncates where it casts float32 to bfloat16: there torch rounds, afterwards.
    """
    return torch.float32 if INTERPRETED else dtype


def forward(
    call: Call, keep: Tensor | None, mode: str, machine: Machine, size: Tiles | None = None
) -> tuple[Tensor, Tensor, list[Launch]]:
    """Return the output and log-sum-exp, not written yet, and the launches that write them.

    `size` are other tiles than the usual ones.
    """
    problem = prepared(call, keep)
    exact = careful(call, mode)
    shape = (*call.q.shape[:-1], problem.head_dim_v)
    out, lse = _answer(shape, stored(call.q.dtype), call.q)
    if not lse.numel():
        return out, lse, []
    packed = not exact and problem.group > 1 and problem.seqlen_q * problem.group <= DECODE
    members = problem.group if packed else 1
    size = size or _forward_tiles(problem, exact, members, machine)
    blocks = -(-problem.seqlen_q * members // size.block_m)
    programs = problem.size * problem.heads // members * blocks
    parts = _parts(call, problem, exact, programs, machine)
    given, joined = (out, lse), []
    if parts > 1:
        batched = (*shape[:-2], parts * problem.heads, shape[-1])
        given = _answer(batched, torch.float32, call.q)
        joined = [_combine(problem, parts, given, (out, lse))]
    arguments = problem.arguments() | {
        "out": problem.rows(given[0]), "lse": problem.numbers(given[1]), "sinks": problem.sinks,
        "splits": parts if parts > 1 else None,
        "UPCAST": exact or INTERPRETED, "WHOLE": not exact or INTERPRETED, "PACKED": packed,
        "BLOCK_M": size.block_m, "BLOCK_N": size.block_n,
        "EDGES": 0 if _aligned(call, problem, exact, size) else size.edges,
    }  # fmt: skip
    return out, lse, [Launch(kernel.forward, programs * parts, arguments, size), *joined]


def _answer(shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return memory for an output of `shape` (..., rows, nheads, dim) and its log-sum-exp."""
    numbers = (*shape[:-3], shape[-2], shape[-3])
    return like.new_empty(shape, dtype=dtype), like.new_empty(numbers, dtype=torch.float32)


def _forward_tiles(problem: Problem, exact: bool, members: int, machine: Machine) -> Tiles:
    if INTERPRETED:
        return INTERPRETED_TILES
    return tiles.forward_tiles(
        mode="ref" if exact else "fast",
        head_dim=problem.widest,
        rows=problem.seqlen_q * members,
        causal=problem.right == 0,
        seqlen_k=problem.seqlen_k,
        shared=machine.shared,
    )


def _aligned(call: Call, problem: Problem, exact: bool, size: Tiles) -> bool:
    """Return whether every tile of keys is seen whole by every query."""
    unlimited = problem.left is None and problem.right is None
    even = call.layout is None and problem.seqlen_k % size.block_n == 0
    return unlimited and even and (INTERPRETED or not exact)


def _parts(call: Call, problem: Problem, exact: bool, programs: int, machine: Machine) -> int:
    """Return into how many parts the keys are cut: as the call says, or as the GPU needs."""
    if call.splits or exact:
        return max(1, call.splits)
    if problem.seqlen_q * problem.group > DECODE:
        return 1
    keys = problem.seqlen_k
    if problem.left is not None:
        keys = min(keys, problem.left + problem.seqlen_q)
    return tiles.splits(programs, keys, machine.processors)


def _combine(
    problem: Problem, parts: int, given: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]
) -> Launch:
    """Return the launch that joins the `parts` of each row; packed rows are one sequence's."""
    size = Tiles(128 if INTERPRETED else 16, 0, 4, 1)
    given_out, out = (x if x.dim() == 4 else x[None] for x in (given[0], wanted[0]))
    given_lse, lse = (x if x.dim() == 3 else x[None] for x in (given[1], wanted[1]))
    arguments = {
        "parts": view(given_out), "part_lse": view(given_lse.transpose(1, 2).unsqueeze(-1)),
        "out": view(out), "lse": view(lse.transpose(1, 2).unsqueeze(-1)),
        "seqlen_q": out.shape[1], "heads": problem.heads, "splits": parts,
        "HEAD_V": problem.head_dim_v, "BLOCK_M": size.block_m,
        "BLOCK_DV": padded(problem.head_dim_v),
    }  # fmt: skip
    programs = out.shape[0] * problem.heads * -(-out.shape[1] // size.block_m)
    return Launch(kernel.combine, programs, arguments, size)


def backward(
    dout: Tensor,
    call: Call,
    out: Tensor,
    lse: Tensor,
    keep: Tensor | None,
    mode: str,
    machine: Machine,
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """Return dq, dk and dv, not written yet, and the launches that write them."""
    problem = prepared(call, keep)
    _check_backward(dout, call, out, lse, problem)
    # Rows that no sequence owns are nobody's to write.
    dq, dk, dv = (
        torch.zeros(x.shape, dtype=stored(x.dtype), device=x.device)
        for x in (call.q, call.k, call.v)
    )
    if not lse.numel() or not dk.numel():
        return (dq, dk, dv), []
    delta = (out.float() * dout.float()).sum(-1).transpose(-1, -2).contiguous()
    exact = careful(call, mode)
    arguments = problem.arguments() | {
        "dout": problem.rows(dout), "lse": problem.numbers(lse), "delta": problem.numbers(delta),
        "UPCAST": exact or INTERPRETED,
    }  # fmt: skip
    launches = []
    for name, function, results, heads, length in (
        ("keys", kernel_backward.gradient_of_keys,
         {"dk": problem.rows(dk), "dv": problem.rows(dv)}, problem.heads_k, problem.seqlen_k),
        ("queries", kernel_backward.gradient_of_queries,
         {"dq": problem.rows(dq)}, problem.heads, problem.seqlen_q),
    ):  # fmt: skip
        size = INTERPRETED_TILES
        if not INTERPRETED:
            size = tiles.backward_tiles(
                mode="ref" if exact else "fast",
                kernel=name,
                head_dim=problem.widest,
                shared=machine.shared,
            )
        held = size.block_n if name == "keys" else size.block_m
        blocks = {"BLOCK_M": size.block_m, "BLOCK_N": size.block_n}
        programs = problem.size * heads * -(-length // held)
        launches.append(Launch(function, programs, arguments | results | blocks, size))
    return (dq, dk, dv), launches


def _check_backward(dout: Tensor, call: Call, out: Tensor, lse: Tensor, problem: Problem) -> None:
    """Raise ValueError where a shape does not fit, NotImplementedError for keys in pages."""
    if problem.batch.table is not None:
        raise NotImplementedError("the gradients of keys in pages")
    shape = (*call.q.shape[:-1], call.v.shape[-1])
    if not dout.shape == out.shape == shape:
        raise ValueError(f"shapes do not fit: dout {tuple(dout.shape)}, out {tuple(out.shape)}")
    if lse.shape != (*shape[:-3], shape[-2], shape[-3]):
        raise ValueError(f"shapes do not fit: lse {tuple(lse.shape)}")
