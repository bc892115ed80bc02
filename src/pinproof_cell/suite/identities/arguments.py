"""Identities of the arguments: neutral values, values that must show, and values that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from pinproof_cell.call import Call
from pinproof_cell.judge.forward import Judgement
from pinproof_cell.suite.identities.compare import Bench, wrong
from pinproof_cell.suite.trial import CRASH, NOT_RUN, CallError


def wide_window(bench: Bench) -> Iterator[Judgement]:
    """P2: a window beyond both ends equals no window. Within the rounding of both."""
    call = bench.draw()
    size = call.q.shape[1] + call.k.shape[1]
    other = bench.ask(replace(call, window_size=(size, size)))
    yield bench.agree(bench.ask(call), other, "a window beyond both ends, and none")


def flat_slopes(bench: Bench) -> Iterator[Judgement]:
    """P2: ALiBi with slopes of 0 equals none. Within the rounding of both."""
    call = bench.draw()
    shape = (len(bench.case.sequences), call.q.shape[-2])
    slopes = torch.zeros(shape, dtype=torch.float32, device=call.q.device)
    other = bench.ask(replace(call, alibi_slopes=slopes))
    yield bench.agree(bench.ask(call), other, "ALiBi slopes of 0, and none")


def sunken_sinks(bench: Bench) -> Iterator[Judgement]:
    """P2: sinks far below every logit equal none. Within the rounding of both."""
    call = bench.draw()
    sinks = torch.full((call.q.shape[-2],), -1e4, dtype=torch.float32, device=call.q.device)
    other = bench.ask(replace(call, sinks=sinks))
    yield bench.agree(bench.ask(call), other, "sinks far below every logit, and none")


def spelled_scale(bench: Bench) -> Iterator[Judgement]:
    """P2: 1 / sqrt(head dimension) spelled out equals the default. The same: it is one number."""
    call = bench.draw()
    first, second = bench.ask(call), bench.ask(replace(call, softmax_scale=call.scale))
    yield bench.same(second, first, "the default scale spelled out, and not")


#: Another call of the same case, by the argument that differs.
_OTHER: dict[str, Callable[[Bench, Call], Call]] = {
    "softcap": lambda bench, call: replace(call, softcap=call.softcap / 3),
    "window": lambda bench, call: replace(call, window_size=(call.window_size[0] // 3, 0)),
    "scale": lambda bench, call: replace(call, softmax_scale=call.scale / 2),
    "mask": lambda bench, call: replace(call, causal=not call.causal),
    "length": lambda bench, call: bench.draw(seqlen_q=90, seqlen_k=150),
    "group": lambda bench, call: bench.draw(heads_k=bench.case.heads),
    "batch": lambda bench, call: bench.draw(lengths=bench.case.lengths[::-1]),
}


def again(bench: Bench, argument: str) -> Iterator[Judgement]:
    """Ask A, B with another argument, and A again: both A are the same, and B is right.

    A as the same, B by z. Caches of compiled kernels have returned the kernel of the first argument
    for the second. The gradients of A and B are judged by z, one after the other.
    """
    call = bench.draw()
    other = _OTHER[argument](bench, call)
    words = f"after a call with another {argument}"
    if bench.case.backward:
        yield from [bench.gradients(x, words) for x in (call, other)]
        return
    first, between, second = bench.ask(call), bench.ask(other), bench.ask(call)
    yield bench.right(between, words)
    yield bench.same(second, first, f"the first call, and the same {words}")


#: A call that differs from the plain one, by the argument that it sets.
_SHOWN: dict[str, Callable[[Bench], Call]] = {
    "causal": lambda bench: bench.draw(causal=True),
    "window": lambda bench: bench.draw(window=(7, 5)),
    "softcap": lambda bench: bench.draw(softcap=0.5),
    "alibi": lambda bench: bench.draw(alibi=True),
    "scale": lambda bench: bench.draw(scale=0.5),
    "sinks": lambda bench: bench.draw(sinks=True),
    "dropout": lambda bench: bench.draw(dropout=0.5),
}


def ignored(bench: Bench, argument: str) -> Iterator[Judgement]:
    """Ask with an argument and without: it must change the output, or be refused.

    Also where the candidate does not admit it: whoever takes an argument and ignores it answers
    another question than was asked. How it is refused does not matter.
    """
    call = _SHOWN[argument](bench)
    plain = bench.ask(Call(q=call.q, k=call.k, v=call.v))
    try:
        out, _ = bench.trial.forward(call)
    except CallError as error:
        if error.result.status in (CRASH, NOT_RUN):
            raise
        return
    if torch.equal(out.reshape(plain.out.shape), plain.out):
        yield wrong("ignored", f"{argument} changes nothing in the output, and is not refused")
