"""The attention implementations under test, a module each, behind one small protocol.

Importing this package imports no candidate and no torch: a module that crashes on import must not
take its caller along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from pinproof_cell.call import Call

#: Axis values that stand for "no package of its own in this cell".
ABSENT = frozenset({"none", "bundled"})
LOW_PRECISION = frozenset({"fp16", "bf16"})
LSE_PLUS_INF = math.inf
LSE_MINUS_INF = -math.inf


class Candidate(Protocol):
    """What the suite and the probe need of an attention implementation.

    ``supports`` names the features (see `pinproof_cell.suite.cases.FEATURES`) that its own
    documentation or signature admits; ``lse_on_empty_rows`` is its convention for a query that
    sees no key.
    """

    @property
    def name(self) -> str:
        """The name in results and on the command line."""

    @property
    def origin(self) -> str:
        """The distribution that brings it, such as "torch" or "vllm"."""

    @property
    def version(self) -> str | None:
        """The version of that distribution, or None where it is not installed."""

    @property
    def supports(self) -> frozenset[str]:
        """The features that it admits."""

    @property
    def lse_on_empty_rows(self) -> float:
        """What it writes as the log-sum-exp of a row without keys."""

    def available(self) -> str | None:
        """Return why it cannot run here, or None where it can. Imports it: call in a child."""

    def forward(self, call: Call) -> tuple[Tensor, Tensor | None]:
        """Return the output, like q with the head dimension of v, and the natural log-sum-exp.

        The latter is float32 (batch, nheads, seqlen_q), or (nheads, total_q) of a ragged call; None
        where "lse" is not in `supports`. Raises NotImplementedError for what it does not take.

        With "backward" in `supports` there is ``backward(dout, call, out, lse)`` too, which returns
        the gradients of q, k and v.
        """


def find(axes: Mapping[str, str], device: str) -> tuple[Candidate, ...]:
    """Return the candidates that a cell of these axes must hold; `device` is "cpu" or "cuda".

    Those that no axis names are found where their distribution is installed.
    """
    from pinproof_cell.candidates import (
        flash_attn_2,
        flash_attn_4,
        flash_infer,
        torch_cpu,
        torch_sdpa,
        vllm_fa,
        vllm_triton,
    )

    has_vllm = axes.get("vllm", "none") not in ABSENT
    if device == "cpu":
        return (torch_cpu.CANDIDATE, *([vllm_triton.INTERPRETED] if has_vllm else []))
    found: list[Candidate] = [torch_sdpa.FLASH, torch_sdpa.CUDNN, torch_sdpa.EFFICIENT]
    if axes.get("flash-attn", "none") not in ABSENT:
        found.append(flash_attn_2.CANDIDATE)
    if has_vllm:
        found += [vllm_fa.FA2, vllm_fa.FA3, vllm_triton.COMPILED]
    unasked: tuple[Candidate, ...] = (flash_attn_4.CANDIDATE, flash_infer.CANDIDATE)
    return (*found, *(candidate for candidate in unasked if candidate.version))


def known() -> tuple[Candidate, ...]:
    """Return every candidate that has a name, our own kernel first."""
    from pinproof_cell.candidates import (
        flash_attn_2,
        flash_attn_4,
        flash_infer,
        torch_cpu,
        torch_math,
        torch_sdpa,
        triton_reference,
        vllm_fa,
        vllm_triton,
    )

    return (
        triton_reference.REF,
        triton_reference.FAST,
        torch_cpu.CANDIDATE,
        torch_math.CANDIDATE,
        torch_sdpa.FLASH,
        torch_sdpa.CUDNN,
        torch_sdpa.EFFICIENT,
        flash_attn_2.CANDIDATE,
        flash_attn_2.DETERMINISTIC,
        flash_attn_4.CANDIDATE,
        vllm_fa.FA2,
        vllm_fa.FA3,
        vllm_triton.CANDIDATE,
        flash_infer.CANDIDATE,
    )


def get(name: str) -> Candidate:
    """Return the candidate called `name`, or load one from ``FILE.py:NAME``.

    Raises ValueError for a name that is neither.
    """
    from pinproof_cell.candidates import provider

    check_name(name)
    named = {candidate.name: candidate for candidate in known()}
    return named[name] if name in named else provider.load(name)


def check_name(name: str) -> None:
    """Raise ValueError where `name` is neither a known one nor ``FILE.py:NAME`` of a file.

    Imports neither, so that who supervises them can ask.
    """
    names = [candidate.name for candidate in known()]
    if name in names:
        return
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py") or not attribute.isidentifier():
        wanted = f"a provider is FILE.py:NAME, and there is no candidate {name!r}"
        raise ValueError(f"{wanted}; known: {', '.join(names)}")
    if not Path(file).is_file():
        raise ValueError(f"no file {file!r}")
