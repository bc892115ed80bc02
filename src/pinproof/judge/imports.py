"""What failed imports and missing candidates claim, from the inspect document. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pinproof.judge.speed import asks_for
from pinproof.judge.verdict import Claim, Verdict

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell

#: No module sends these to itself: the kernel's memory killer or a person does.
_FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})

#: A candidate that is there and could not be loaded, unlike one that is for another architecture.
_UNLOADABLE = re.compile(r"undefined symbol|cannot open shared object|unavailable due to|DLL load")

#: An import that fails like this fails by the lack of a driver.
_NO_DRIVER = re.compile(r"libcuda\.so\.1|no NVIDIA driver|driver on your system is too old")


def claims(cell: Cell, inspect: Mapping[str, Any]) -> Iterator[Claim]:
    """Claim from imports and candidates that the axes ask for and the environment lacks."""
    if not inspect:
        return
    device = inspect.get("device", {})
    on_target = cell.target == "cpu" or device.get("capability") == cell.target
    ended = [entry for entry in inspect.get("imports", ()) if not entry["ok"]]
    outside = [entry for entry in ended if entry.get("signal") in _FROM_OUTSIDE]
    for entry in outside:
        yield Verdict.INCONCLUSIVE, f"import {entry['module']}: {entry.get('error')}"
    failed = [
        f"import {entry['module']}: {entry.get('error')}" for entry in ended if entry not in outside
    ]
    driverless = [error for error in failed if _NO_DRIVER.search(error)]
    yield from ((Verdict.IMPORT_FAIL, error) for error in failed if error not in driverless)
    if not on_target:
        return  # without its GPU a candidate may hide; the later stages say UNVERIFIED
    if driverless:
        yield from ((Verdict.INCONCLUSIVE, error) for error in driverless)
        return
    for axis, prefix in (("flash-attn", "flash-attn"), ("vllm", "vllm-")):
        named = [item for item in inspect.get("candidates", ()) if item["name"].startswith(prefix)]
        if asks_for(cell, axis) and not any(item["available"] for item in named):
            why = next((item["reason"] for item in named if item.get("reason")), "it is not there")
            yield Verdict.IMPORT_FAIL, f"no attention of {axis} can be called: {why}"
        for item in named if asks_for(cell, axis) else ():
            if not item["available"] and _UNLOADABLE.search(str(item.get("reason"))):
                yield Verdict.IMPORT_FAIL, f"{item['name']}: {item['reason']}"
