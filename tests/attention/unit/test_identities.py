"""An identity holds for a right kernel, and breaks with the error that it is there for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from eager import eager
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.candidates import provider
from pinproof_cell.judge import thresholds
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.suite.examine import examine
from pinproof_cell.suite.identities import Identity, catalogue
from pinproof_cell.suite.trial import Result

QUICK = tuple(catalogue.suite("quick"))

Answer = tuple[Tensor, Tensor]
Kernel = Callable[[Call], Answer]


def right(call: Call, **changed: Any) -> Answer:
    call = replace(call, **changed)
    return eager(call.q, call.k, call.v, **call.keywords())


def asked(identity: Identity, kernel: Kernel = right) -> Result:
    def function(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Answer:
        return kernel(Call(q=q, k=k, v=v, **rest))

    function.supports = FEATURES  # type: ignore[attr-defined]
    function.backward = eager.backward  # type: ignore[attr-defined]
    return examine(
        provider.Provider("provider", function),
        identity,
        seed=0,
        device="cpu",
        thresholds=thresholds.load("cpu"),
    )


@pytest.mark.parametrize("identity", [x for x in QUICK if not x.rare], ids=lambda x: x.id)
def test_a_right_kernel_holds_it(identity: Identity) -> None:
    """Every identity holds for attention that is right, whatever it asks for."""
    found = asked(identity)
    assert found.status == "PASS", found.reasons


def one_key_less(call: Call) -> Answer:
    if call.layout is None and call.causal:
        return right(call, k=call.k[:, 1:], v=call.v[:, 1:])
    return right(call)


def one_page_wrong(call: Call) -> Answer:
    layout = call.layout
    if layout is None or layout.block_table is None:
        return right(call)
    return right(call, layout=replace(layout, block_table=layout.block_table.roll(1, 1)))


def reads_too_far(call: Call) -> Answer:
    if call.layout is None or call.layout.block_table is None:
        return right(call)
    lengths = call.layout.lengths_k
    longer = torch.where(lengths % call.k.shape[1] > 0, lengths + 1, lengths)
    layout = replace(call.layout, lengths_k=longer, max_k=int(longer.max()))
    return right(call, layout=layout)


def padding_forgotten(call: Call) -> Answer:
    layout = call.layout
    if layout is None or layout.left_padding is None:
        return right(call)
    return right(call, layout=replace(layout, left_padding=layout.left_padding - 1))


def weighs_the_tail_zero(call: Call) -> Answer:
    out, lse = right(call)
    if call.layout is not None and call.layout.block_table is not None:
        page = call.k.shape[1]
        whole = replace(call.layout, lengths_k=-(-call.layout.lengths_k // page) * page)
        out = out + 0 * whole.keys(call.v, 0).sum()
    return out, lse


def strides_forgotten(call: Call) -> Answer:
    k = call.k
    flat = torch.as_strided(k, k.shape, k.new_empty(k.shape).stride(), k.storage_offset())
    return right(call, k=flat) if not k.is_contiguous() else right(call)


def heads_in_turn(call: Call) -> Answer:
    heads, heads_k = call.q.shape[-2], call.k.shape[-2]
    order = torch.arange(heads) % heads_k
    return right(call, k=call.k[..., order, :], v=call.v[..., order, :])


def first_of_batch(call: Call) -> Answer:
    if call.layout is not None:
        starts = call.layout.starts_k
        if starts is not None:
            layout = replace(call.layout, starts_k=(starts - 1).clamp(min=0))
            return right(call, layout=layout)
        return right(call)
    return right(call, k=call.k[:1].expand(call.k.shape))


def sees_the_future(call: Call) -> Answer:
    return right(call, causal=False, window_size=(call.window_size[0], 1))


def keys_matter_by_place(call: Call) -> Answer:
    place = torch.linspace(0.5, 1.0, call.k.shape[-3]).to(call.v.dtype)
    return right(call, v=call.v * place[:, None, None])


def clipped(call: Call) -> Answer:
    out, lse = right(call)
    return out.clamp(-0.2, 0.2), lse


def lse_of_first_split(call: Call) -> Answer:
    out, lse = right(call, splits=0)
    return out, lse - torch.log(torch.tensor(float(max(call.splits, 1))))


def lse_without_maximum(call: Call) -> Answer:
    out, lse = right(call)
    return out, lse.clamp(max=6.0)


def one_row(call: Call) -> Answer:
    if call.layout is None and call.q.shape[1] == 1 and call.k.shape[1] > 1:
        return right(call, k=call.k[:, :-1], v=call.v[:, :-1])
    if call.layout is not None and call.layout.max_q == 1:
        return right(call, layout=replace(call.layout, lengths_k=call.layout.lengths_k - 1))
    return right(call)


def mean_of_two(call: Call) -> Answer:
    out, lse = right(call)
    return out * 0.875, lse


def other_word_for_empty(call: Call) -> Answer:
    out, lse = right(call)
    return out, lse.masked_fill(torch.isneginf(lse), 0.0) if call.window_size[0] >= 0 else lse


def stale_rows(call: Call) -> Answer:
    out, lse = right(call)
    if call.layout is not None:
        for row, length in zip(call.layout.rows(), call.layout.lengths_k.tolist(), strict=True):
            if not length:
                out[row[0] : row[1]] = 1.0
    return out, lse


def reads_before(call: Call) -> Answer:
    out, lse = right(call)
    if call.k.storage_offset():
        before = torch.as_strided(call.k, (1,), (1,), call.k.storage_offset() - 1)
        return out + 0 * before, lse
    return out, lse


class Caching:
    """A kernel that keeps the first value of an argument for all later calls."""

    def __init__(self, argument: str) -> None:
        self.argument = argument
        self.kept: dict[str, Any] = {}

    def __call__(self, call: Call) -> Answer:
        value = getattr(call, self.argument)
        kept = self.kept.setdefault(self.argument, value)
        return right(call, **{self.argument: kept})


class FirstBatch:
    """A kernel that keeps the first lengths of each number of sequences, as a captured graph."""

    def __init__(self) -> None:
        self.kept: dict[int, Any] = {}

    def __call__(self, call: Call) -> Answer:
        if call.layout is None:
            return right(call)
        kept = self.kept.setdefault(call.layout.batch, call.layout)
        return right(call, layout=replace(call.layout, lengths_k=kept.lengths_k))


def ignoring(argument: str, value: Any) -> Kernel:
    return lambda call: right(call, **{argument: value})


BROKEN: dict[str, tuple[Kernel, ...]] = {
    "P0-zero-logits": (one_key_less, reads_too_far, sees_the_future),
    "P1-scaled-values": (clipped,),
    "P2-wide-window": (lambda call: right(call, causal=call.window_size != (-1, -1)),),
    "P2-flat-slopes": (
        lambda call: right(call, alibi_slopes=None, causal=call.alibi_slopes is not None),
    ),
    "P2-sunken-sinks": (
        lambda call: right(call, sinks=None if call.sinks is None else call.sinks + 1e4),
    ),
    "P2-spelled-scale": (
        lambda call: right(call, softmax_scale=None if call.softmax_scale is None else 0.1),
    ),
    "P3-views": (strides_forgotten,),
    "P4-paged": (one_page_wrong,),
    "P5-grouped": (heads_in_turn,),
    "P6-alone": (first_of_batch,),
    "P7-beyond": (reads_too_far, padding_forgotten),
    "P7-beyond-nan": (weighs_the_tail_zero,),
    # Attention that is right, and reads every key: NaN times a weight of 0 is NaN.
    "P7-outside-window": (right,),
    "P8-future-keys": (sees_the_future,),
    "P9-shifted-keys": (lse_without_maximum,),
    "P10-splits": (lse_of_first_split,),
    "P11-permuted-keys": (keys_matter_by_place,),
    "P12-last-row": (one_row,),
    "P13-one-hot": (sees_the_future, mean_of_two),
    "P14-one-key": (mean_of_two,),
    "P14-empty-rows": (other_word_for_empty,),
    "P14-empty-sequences": (stale_rows,),
    "P15-guard-bands": (reads_before,),
    "P15-guard-rows": (reads_before,),
    "again-softcap": (Caching("softcap"),),
    "again-window": (Caching("window_size"),),
    "again-batch": (FirstBatch(),),
    "ignored-causal": (ignoring("causal", False),),
    "ignored-window": (ignoring("window_size", (-1, -1)),),
    "ignored-softcap": (ignoring("softcap", 0.0),),
    "ignored-alibi": (ignoring("alibi_slopes", None),),
    "ignored-scale": (ignoring("softmax_scale", None),),
    "ignored-sinks": (ignoring("sinks", None),),
    "ignored-dropout": (ignoring("dropout", 0.0),),
}
PAIRS = [(name, kernel) for name, kernels in BROKEN.items() for kernel in kernels]


@pytest.mark.parametrize(("name", "kernel"), PAIRS)
def test_it_breaks_with_the_error_that_it_is_there_for(name: str, kernel: Kernel) -> None:
    """The broken kernel fails the identity on some case of the quick suite, with a finding."""
    found = (asked(identity, kernel) for identity in QUICK if identity.name == name)
    failed = next(result for result in found if result.status == "FAIL")
    assert {finding.check for finding in failed.findings} <= {"identity", "output", "lse"}


def test_every_identity_is_broken_by_something() -> None:
    """No identity of the quick suite goes without a kernel that breaks it, but for gradients."""
    left = {identity.name for identity in QUICK} - set(BROKEN)
    assert left == {"P1-scaled-gradient"}


@pytest.mark.parametrize(("size", "status"), [(1e-6, {"PASS"}), (1.0, {"FAIL", "FLAKY"})])
def test_bits_that_vary_within_rounding_are_no_error(size: float, status: set[str]) -> None:
    """A log-sum-exp that is off by its rounding now and then holds; one that is off by more fails.

    The evidence counts the numbers that differed.
    """
    source = torch.Generator().manual_seed(3)

    def unsteady(call: Call) -> Answer:
        out, lse = right(call)
        return out, lse + size * torch.rand(lse.shape, generator=source)

    names = ("P1-scaled-values", "P7-beyond", "P8-future-keys", "P15-guard-bands", "again-window")
    for identity in QUICK:
        if identity.name in names:
            found = asked(identity, unsteady)
            assert found.status in status, (identity.id, found.reasons)
            assert size > 1e-3 or found.stats["differing"] > 0


def test_equal_weights_may_be_rounded_before_they_are_summed() -> None:
    """A kernel that normalises P first rounds all weights of a row alike, and counts right."""

    def normalised(call: Call) -> Answer:
        if call.layout is not None:
            return right(call)
        eye = torch.eye(call.k.shape[1]).to(call.v.dtype)
        p, lse = right(call, v=eye[None, :, None].expand(*call.v.shape[:3], -1).contiguous())
        group = call.q.shape[2] // call.k.shape[2]
        v = call.v.repeat_interleave(group, 2).float()
        return torch.einsum("bqhk,bkhd->bqhd", p.float(), v).to(call.v.dtype), lse

    # Every row sees 255 keys, and 1 / 255 in bf16 is off by nearly all that rounding may be.
    identity = Identity("P0-zero-logits", "values.zero_logits", Case(64, 255))
    assert asked(identity, normalised).status == "PASS"


def test_what_is_refused_is_not_ignored() -> None:
    """A keyword that raises was not ignored, whether a candidate admits it or not."""

    def refuses(call: Call) -> Answer:
        if call.softcap:
            raise ValueError("softcap must be 0")
        return right(call)

    found = [asked(identity, refuses) for identity in QUICK if identity.name == "ignored-softcap"]
    assert [result.status for result in found] == ["PASS"]
