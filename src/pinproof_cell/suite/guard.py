"""The contract of a call, held against what came back, before any number is judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pinproof_cell.call import Call
from pinproof_cell.candidates import Candidate
from pinproof_cell.judge.findings import Finding


class AnswerError(Exception):
    """An answer that breaks the contract in the point `statistic`; the message says how."""

    def __init__(self, statistic: str, text: str) -> None:
        super().__init__(text)
        self.finding = Finding("contract", statistic, text)


@dataclass(frozen=True)
class Guarded:
    """A candidate whose every answer is checked: kind, device, type, shape, and its inputs.

    Raises AnswerError from ``forward`` and ``backward``. Inputs that the candidate changed are put
    back first, so that what runs after it sees what it should.
    """

    inner: Candidate

    @property
    def name(self) -> str:
        """The name of the candidate."""
        return self.inner.name

    @property
    def origin(self) -> str:
        """The distribution that brings it."""
        return self.inner.origin

    @property
    def version(self) -> str | None:
        """The version of that distribution."""
        return self.inner.version

    @property
    def supports(self) -> frozenset[str]:
        """The features that it admits."""
        return self.inner.supports

    @property
    def lse_on_empty_rows(self) -> float:
        """What it writes for a row without keys."""
        return self.inner.lse_on_empty_rows

    def available(self) -> str | None:
        """Return why it cannot run here, or None."""
        return self.inner.available()

    def forward(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Attend, and check the answer."""
        given = _given(call)
        with _unchanged(given):
            answer = _sequence(self.inner.forward(call), ("out", "lse"))
            q = call.q
            # (batch, nheads, seqlen_q), or (nheads, total_q) of a ragged call.
            rows = (*q.shape[:-3], q.shape[-2], q.shape[-3])
            _check("out", answer[0], (*q.shape[:-1], call.v.shape[-1]), q.dtype, given)
            if answer[1] is not None or "lse" in self.supports:
                _check("lse", answer[1], rows, torch.float32, given)
        return answer[0], answer[1]

    def backward(
        self, dout: Tensor, call: Call, out: Tensor, lse: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients, checked. Raises NotImplementedError where there are none."""
        backward = getattr(self.inner, "backward", None)
        if backward is None:
            raise NotImplementedError(f"{self.name} has no backward")
        given = _given(call) | {"dout": dout, "out": out}
        if lse is not None:
            given["lse"] = lse
        with _unchanged(given):
            answer = _sequence(backward(dout, call, out, lse), ("dq", "dk", "dv"))
            for name, found, like in zip(
                ("dq", "dk", "dv"), answer, (call.q, call.k, call.v), strict=True
            ):
                _check(name, found, tuple(like.shape), like.dtype, given)
        return answer[0], answer[1], answer[2]


def _given(call: Call) -> dict[str, Tensor]:
    tensors = ("q", "k", "v", "alibi_slopes", "sinks")
    return {name: x for name in tensors if (x := getattr(call, name)) is not None}


@contextmanager
def _unchanged(given: dict[str, Tensor]) -> Iterator[None]:
    """Put what was changed meanwhile back; raises AnswerError that names it."""
    device = torch.get_default_device()
    before = {name: tensor.clone() for name, tensor in given.items()}
    try:
        yield
    finally:
        changed = [
            name for name, x in given.items() if not torch.equal(bits(x), bits(before[name]))
        ]
        for name in changed:
            given[name].copy_(before[name])
        moved = torch.get_default_device() != device
        if moved:
            torch.set_default_device(None)  # ours is never another
    if moved:
        raise AnswerError("default-device", "the call changed torch's default device")
    if changed:
        raise AnswerError("input-changed", f"the call changed {', '.join(changed)}")


def bits(x: Tensor) -> Tensor:
    """Return the bits of `x` as whole numbers, so that NaN equals itself."""
    return x.view(torch.int16 if x.element_size() == 2 else torch.int32)


def _sequence(answer: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(answer, (tuple, list)) or len(answer) != len(names):
        wanted = ", ".join(names)
        raise AnswerError("type", f"the call returned {_kind(answer)}, not ({wanted})")
    return answer


def _check(
    name: str, tensor: Any, shape: tuple[int, ...], dtype: torch.dtype, given: dict[str, Tensor]
) -> None:
    if not isinstance(tensor, Tensor):
        raise AnswerError("type", f"{name} is {_kind(tensor)}, not a tensor")
    device = given["q"].device
    if tensor.device != device:
        raise AnswerError("device", f"{name} is on {tensor.device}, not on {device}")
    if tuple(tensor.shape) != shape:
        raise AnswerError("shape", f"{name} is {tuple(tensor.shape)}, not {shape}")
    if tensor.dtype != dtype:
        raise AnswerError("dtype", f"{name} is {tensor.dtype}, not {dtype}")
    owner = _owner(tensor, given)
    if owner:
        raise AnswerError("aliases-input", f"{name} lies in the memory of {owner}")


def _owner(tensor: Tensor, given: dict[str, Tensor]) -> str | None:
    """Return the name of the input in whose memory `tensor` lies, or None."""
    if not tensor.numel():
        return None
    place = tensor.untyped_storage().data_ptr()
    for name, candidate in given.items():
        if candidate.numel() and candidate.untyped_storage().data_ptr() == place:
            return name
    return None


def _kind(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
