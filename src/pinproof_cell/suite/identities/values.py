"""Identities of the numbers: what q, k and v may be changed to, and what the answer then is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.judge.forward import Judgement
from pinproof_cell.oracle.forward import visible
from pinproof_cell.suite import inputs
from pinproof_cell.suite.identities.compare import Bench, equal, wrong

#: Above this a number is none that was drawn: it stands where no sequence has a key.
DRAWN = 1e3


def zero_logits(bench: Bench) -> Iterator[Judgement]:
    """P0: with q = 0 the log-sum-exp counts the keys, and the output is the mean of their V.

    The count is exact: exp(LSE) must be nearer to it than to any other. The mean is judged by z, in
    its worst element and row, since a kernel may round its weights, which are all alike.
    """
    call = bench.draw()
    v = torch.where(call.v.abs() > DRAWN, call.v, call.v.round().clamp(-3, 3))
    side = bench.ask(replace(call, q=torch.zeros_like(call.q), v=v))
    if side.lse is not None:
        counted, keys = side.lse.double().exp(), side.truth.lse.exp().round()
        keyed = ~side.truth.empty
        off = int(((counted - keys).abs()[keyed] > 0.5).sum())
        off += int((~torch.isfinite(counted[keyed])).sum())
        if off:
            text = f"q = 0: the log-sum-exp of {off} rows does not count the keys that they see"
            yield wrong("keys", text, off, 0)
    yield bench.right(side, "q = 0", alike=True)


def scaled_values(bench: Bench) -> Iterator[Judgement]:
    """P1: V times 8192 gives the output times 8192, and the same log-sum-exp.

    The same: a power of two passes through every product, sum and rounding. Left out are outputs
    below the normal numbers of their type, whose rounding has another size. An output that fp16
    holds may be one that it does not hold before it is divided by the sum of the weights.
    """
    call = bench.draw()
    first = bench.ask(call)
    second = bench.ask(replace(call, v=call.v * 8192))
    normal = first.out.abs() >= torch.finfo(first.out.dtype).smallest_normal
    scaled = torch.where(normal, first.out * 8192, second.out)
    once = replace(first, out=scaled, truth=second.truth)
    yield bench.same(second, once, "V times 8192, and the output times 8192")


def scaled_gradient(bench: Bench) -> Iterator[Judgement]:
    """P1 of gradients: dO times 16 gives gradients times 16.

    Bit by bit, but for dQ of a kernel that does not promise its bits, and below normal numbers. Not
    for fp16, where P and dS leave the normal numbers as well.
    """
    trial, case = bench.trial, bench.case
    call, dout = bench.draw(), inputs.output_gradient(case, trial.seed, trial.device)
    out, lse = trial.forward(call)
    first = [x.clone() for x in trial.backward(dout, call, out, lse)]
    second = trial.backward(dout * 16, call, out, lse)
    for name, once, more in zip(("dQ", "dK", "dV"), first, second, strict=True):
        if name != "dQ" or "deterministic" in trial.candidate.supports:
            normal = once.abs() >= torch.finfo(once.dtype).smallest_normal
            yield from equal(more, torch.where(normal, once * 16, more), f"{name} with dO times 16")


def shifted_keys(bench: Bench) -> Iterator[Judgement]:
    """P9: one vector c added to every key leaves the output and moves LSE by scale * q.c.

    Keys and c are multiples of 1/16, so that their sum is exact. Within the rounding of both: the
    logits are other ones. Each answer is judged by z as well.
    """
    call = bench.draw()
    c = torch.tensor([1.5, -0.75, 0.25, 1.0], device=call.k.device)
    c = c.repeat(-(-call.k.shape[-1] // 4))[: call.k.shape[-1]]
    own = (call.k.float() * 16).round().clamp(-62, 62) / 16
    # What stands where no sequence has a key stays.
    drawn = call.k.abs() <= DRAWN
    before = torch.where(drawn, own.to(call.k.dtype), call.k)
    after = torch.where(drawn, (own + c).to(call.k.dtype), call.k)
    first, second = (bench.ask(replace(call, k=k)) for k in (before, after))
    yield bench.right(second, "keys shifted by a constant")
    yield bench.agree(first, second, "keys shifted by a constant, and not")


def permuted_keys(bench: Bench) -> Iterator[Judgement]:
    """P11: without a mask the order of the keys does not matter.

    Within the rounding of both, since sums are taken in another order.
    """
    call = bench.draw()
    source = torch.Generator().manual_seed(bench.trial.seed)
    order = torch.randperm(call.k.shape[1], generator=source).to(call.k.device)
    second = bench.ask(replace(call, k=call.k[:, order], v=call.v[:, order]))
    yield bench.agree(bench.ask(call), second, "keys in another order, and in their own")


def one_hot_values(bench: Bench) -> Iterator[Judgement]:
    """P13: with a column of V for each key the output is P itself.

    Hidden keys have exactly no weight; the weights of the others are judged by z.
    """
    call = bench.draw()
    keys = call.k.shape[1]
    eye = torch.eye(keys, call.v.shape[-1], dtype=call.v.dtype, device=call.v.device)
    side = bench.ask(replace(call, v=eye[:, None].expand(call.v.shape).contiguous()))
    hidden = ~_seen(call)
    leaked = int((side.out[..., :keys].transpose(1, 2)[..., hidden] != 0).sum())
    leaked += int((side.out[..., keys:] != 0).sum())
    if leaked:
        yield wrong("hidden_keys", f"{leaked} hidden keys have a weight in the output", leaked, 0)
    yield bench.right(side, "V of ones and zeros")


def future_keys(bench: Bench) -> Iterator[Judgement]:
    """P8: what stands in keys and values that a row does not see yet does not matter.

    The same: a hidden key's logit is replaced and its weight is 0, whatever it holds that is
    finite. The keys from two thirds on become huge.
    """
    call = bench.draw()
    first = bench.ask(call)
    k, v = call.k.clone(), call.v.clone()
    before = []
    for one_k, one_v, (queries, keys) in zip(
        _sequences(call, k), _sequences(call, v), bench.case.sequences, strict=True
    ):
        start = 2 * keys // 3
        one_k[start:] *= 100
        one_v[start:] = 3e4
        own = torch.arange(queries, device=k.device) + keys - queries
        before.append(own + max(call.limits[1], 0) < start)
    second = bench.ask(replace(call, k=k, v=v))
    untouched = torch.stack(before) if call.layout is None else torch.cat(before)[None]
    rows = untouched[:, None]
    lse = None
    if first.lse is not None and second.lse is not None:
        lse = torch.where(rows, second.lse, first.lse)
    out = torch.where(rows.transpose(1, 2)[..., None], second.out, first.out)
    yield bench.same(replace(first, out=out, lse=lse), first, "rows before keys that became huge")


def _sequences(call: Call, x: Tensor) -> list[Tensor]:
    """Return views of the keys of each sequence of a dense or packed batch."""
    if call.layout is None:
        return list(x.unbind(0))
    return [call.layout.keys(x, index) for index in range(call.layout.batch)]


def _seen(call: Call) -> Tensor:
    queries, keys = call.q.shape[1], call.k.shape[1]
    own = torch.arange(queries, device=call.q.device)[:, None] + keys - queries
    return visible(own - torch.arange(keys, device=call.q.device), call.limits)


def one_key(bench: Bench) -> Iterator[Judgement]:
    """P14: a single key has all the weight: the output is its V. By z.

    Bit by bit where P is exp(0) = 1. But a kernel may subtract another number than the largest
    logit, such as the next power of two, and then rounds P before it divides by it.
    """
    yield bench.right(bench.ask(bench.draw()), "a single key")


def empty_rows(bench: Bench) -> Iterator[Judgement]:
    """P14: rows that see nothing have output 0 and all the same log-sum-exp, whatever hides it.

    The mask that is aligned bottom-right, a window, and a packed batch, as far as a candidate
    takes them. Bit by bit: nothing is computed there.
    """
    calls = [bench.draw()]
    supports = bench.trial.candidate.supports
    if "window" in supports:
        calls.append(bench.draw(causal=False, window=(20, 3)))
    if "varlen" in supports:
        lengths = ((30, 20), (40, 7))
        calls.append(bench.draw(layout="varlen", lengths=lengths))
    said: set[float] = set()
    for call in calls:
        side = bench.ask(call)
        kept = int((side.out.transpose(1, 2)[side.truth.empty] != 0).sum())
        if kept:
            yield wrong("empty_rows", f"{kept} outputs of rows that see nothing are not 0", kept, 0)
        if side.lse is not None:
            said |= set(side.lse[side.truth.empty].unique().tolist())
    if len(said) > 1 or any(map(math.isnan, said)):
        words = ", ".join(f"{value:g}" for value in sorted(said))
        text = f"the log-sum-exp of rows that see nothing is not always the same: {words}"
        yield wrong("lse_on_empty_rows", text)
