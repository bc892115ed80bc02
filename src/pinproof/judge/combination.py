"""Whether the environment is the combination that the axes ask for, as inspect saw it. Pure.

What was measured in another combination says nothing of this one, neither for nor against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from pinproof.judge.verdict import Claim, Verdict
from pinproof.matrix import axis as axes
from pinproof.matrix.axis import Kind, Value

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell


def claims(cell: Cell, inspect: Mapping[str, Any]) -> Iterator[Claim]:
    """Claim from versions, and from torch's CUDA, that are not those that the axes ask for."""
    if not inspect:
        return
    for axis, seen in _seen(cell, inspect).items():
        if not _is(axes.parse(axis, cell.axis(axis)), seen, of_installed=_has_its_own(cell)):
            yield (
                Verdict.IMPORT_FAIL,
                f"the cell asks for {axis} {cell.axis(axis)}, and its environment has"
                f" {seen or 'none'}",
            )


def _seen(cell: Cell, inspect: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands on each axis that the cell names; "" where nothing does."""
    packages, torch = inspect.get("packages") or {}, inspect.get("torch") or {}
    # Of a torch that cannot be imported only the version is known; that it cannot is a claim of
    # its own.
    imported = any(each["module"] == "torch" and each["ok"] for each in inspect["imports"])
    seen = {
        "python": inspect.get("python"),
        "torch": torch.get("version"),
        **({"cuda": torch.get("cuda")} if imported else {}),
        **{axis: packages.get(axis) for axis in ("triton", "flash-attn", "vllm")},
    }
    named = {name for name, text in cell.axes if text not in (Kind.NONE, Kind.BUNDLED)}
    return {axis: str(text or "") for axis, text in seen.items() if axis in named}


def _has_its_own(cell: Cell) -> bool:
    """Say if torch is the machine's: then the cuda axis is the toolkit that builds use."""
    return cell.axis("torch") == Kind.INSTALLED


def _is(asked: Value, seen: str, *, of_installed: bool) -> bool:
    """Say if what was `seen` is what is `asked`."""
    try:
        version = Version(seen)
    except InvalidVersion:
        return False
    match asked.kind:
        case Kind.VERSION if asked.version is not None:
            if asked.axis in ("python", "cuda"):
                parts = 1 if asked.axis == "cuda" and of_installed else 2
                return version.release[:parts] == asked.version.release[:parts]
            return Version(version.public) == asked.version and (asked.local in ("", version.local))
        case Kind.SPECIFIER:
            return SpecifierSet(asked.key).contains(version, prereleases=True)
        case Kind.NIGHTLY:
            return version.is_devrelease
        case _:
            return True
