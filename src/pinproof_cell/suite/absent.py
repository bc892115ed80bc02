"""What a build left out: a refusal of it is as it should be, neither a failure nor a pass.

The features are those that flash-attn can be built without (`FLASHATTENTION_DISABLE_*` in its
`static_switch.h` and `flash_api.cpp`). Where such a build answers all the same, its numbers are
judged like any other. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.checks import Check

#: Head dimensions that its kernels are made for; others are padded, which is "uneven_k".
EVEN = frozenset({32, 64, 96, 128, 192, 256})

#: Feature of a build -> whether a call asks for it.
LEFT_OUT: Mapping[str, Callable[[Case], bool]] = {
    "backward": lambda case: case.backward,
    "dropout": lambda case: case.dropout > 0,
    "alibi": lambda case: case.alibi,
    "softcap": lambda case: case.softcap > 0,
    "local": lambda case: case.window != (-1, -1),
    "uneven_k": lambda case: not {case.head_dim, case.dim_v} <= EVEN,
}


#: What a candidate does not admit whose build left a feature out; by head dimension it is admitted.
ADMITTED: Mapping[str, str] = {
    **{name: name for name in ("backward", "dropout", "alibi", "softcap")},
    "local": "window",
}


def features(without: Iterable[str]) -> frozenset[str]:
    """Return the features of `cases.FEATURES` that a build without these does not have."""
    return frozenset(ADMITTED[name] for name in without if name in ADMITTED)


def asked(case: Case, without: Iterable[str]) -> list[str]:
    """Return what the call of `case` asks for of the features that a build left out."""
    return [feature for feature in without if LEFT_OUT[feature](case)]


def marked(
    result: Mapping[str, Any], check: Check, without: Iterable[str], supports: Collection[str]
) -> dict[str, Any]:
    """Return a result with ``absent``: the features left out that explain its refusal.

    What the candidate does not admit anyway is no matter of its build.
    """
    admitted = check.features <= set(supports)
    refused = admitted and result["status"] == "UNSUPPORTED"
    return {**result, "absent": asked(check.case, without) if refused else []}
