"""Identities of batches: how sequences, heads and keys are laid out and shared does not matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from pinproof_cell.call import Call
from pinproof_cell.judge.agreement import Side
from pinproof_cell.judge.forward import Judgement
from pinproof_cell.suite.identities.compare import Bench, wrong


def alone(bench: Bench) -> Iterator[Judgement]:
    """P4, P6: an element of a batch, packed, paged or padded, equals itself in a dense call alone.

    Within the rounding of both, since a kernel may cut the work otherwise. A sequence without keys
    has output 0 and the log-sum-exp of rows without keys.
    """
    call = bench.draw()
    batch = bench.ask(call)
    place = 0
    for number, single in enumerate(_singles(call)):
        queries = single.q.shape[1]
        if call.layout is None:
            part = (slice(number, number + 1), slice(None))
        else:
            part = (slice(None), slice(place, place + queries))
        place += queries
        out = batch.out[part]
        lse = None if batch.lse is None else batch.lse.transpose(1, 2)[part].transpose(1, 2)
        if not queries:
            continue
        if single.k.shape[1]:
            mine = bench.ask(single)
            words = f"element {number} in its batch and alone"
            yield bench.agree(Side(out, lse, mine.truth), mine, words)
        elif bool((out != 0).any()) or (
            lse is not None and bool((lse != bench.trial.candidate.lse_on_empty_rows).any())
        ):
            yield wrong("empty_rows", f"sequence {number} without keys is not 0, or its LSE is not")


def _singles(call: Call) -> Iterator[Call]:
    if call.layout is not None:
        yield from call.sequences()
        return
    for number in range(call.q.shape[0]):
        some = slice(number, number + 1)
        slopes = call.alibi_slopes
        if slopes is not None and slopes.dim() == 2:
            slopes = slopes[some]
        yield replace(call, q=call.q[some], k=call.k[some], v=call.v[some], alibi_slopes=slopes)


def grouped(bench: Bench) -> Iterator[Judgement]:
    """P5: grouped heads equal the same heads repeated. Within the rounding of both."""
    call = bench.draw()
    group = call.q.shape[-2] // call.k.shape[-2]
    k, v = (x.repeat_interleave(group, -2) for x in (call.k, call.v))
    words = "grouped heads and repeated ones"
    yield bench.agree(bench.ask(call), bench.ask(replace(call, k=k, v=v)), words)


def splits(bench: Bench) -> Iterator[Judgement]:
    """P10: 1, 2 and 3 splits of the keys equal as many as the kernel chooses.

    Within the rounding of both, since partial sums are merged.
    """
    call = bench.draw()
    first = bench.ask(call)
    for number in (1, 2, 3):
        words = f"{number} splits and as many as the kernel chooses"
        yield bench.agree(bench.ask(replace(call, splits=number)), first, words)


def last_row(bench: Bench) -> Iterator[Judgement]:
    """P12: the last row of a prefill equals a step of decode. Within the rounding of both."""
    call = bench.draw()
    whole = bench.ask(call)
    if call.layout is None:
        step = bench.ask(replace(call, q=call.q[:, -1:].contiguous()))
        rows = torch.tensor([call.q.shape[1] - 1], device=call.q.device)
    else:
        rows = call.layout.starts_q[1:].long() - 1
        starts = torch.arange(call.layout.batch + 1, dtype=torch.int32, device=rows.device)
        layout = replace(call.layout, starts_q=starts, max_q=1)
        step = bench.ask(replace(call, q=call.q[rows], layout=layout))
    lse = None if whole.lse is None else whole.lse[:, :, rows]
    last = Side(whole.out[:, rows], lse, step.truth)
    yield bench.agree(last, step, "the last row of a prefill and a step of decode")
