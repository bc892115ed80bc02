"""What the audit of a cell's libraries claims: code that its GPU cannot run is no result. Pure.

The audit stands in the inspect document, under ``audit``: every library under test, read by
`pinproof.audit.library` for the cell's target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pinproof.judge.speed import asks_for
from pinproof.judge.verdict import Claim, Verdict

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell

#: Axis -> candidate -> how the names of its libraries begin.
LIBRARIES: Mapping[str, Mapping[str, str]] = {
    "flash-attn": {"flash-attn-2": "flash_attn_2_cuda"},
    "vllm": {"vllm-fa2": "_vllm_fa2_C", "vllm-fa3": "_vllm_fa3_C"},
}

NATIVE, PTX_JIT, NONE, UNREADABLE = "NATIVE", "PTX-JIT", "NONE", "UNREADABLE"


def claims(
    cell: Cell, inspect: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]
) -> Iterator[Claim]:
    """Claim from libraries that have nothing for the GPU, or are not those that were measured.

    `measured` are the documents of the measuring stages by name.
    """
    libraries = inspect.get("audit") or ()
    for each in libraries:
        if each["status"] == UNREADABLE:
            yield Verdict.INCONCLUSIVE, f"{each['file']} cannot be read: {each['problem']}"
    for axis, found in _found(cell, inspect).items():
        if found and all(library["status"] == NONE for library in found.values()):
            worst = next(iter(found.values()))
            holds = ", ".join([*worst["sass"], *worst["ptx"]]) or "none"
            yield (
                Verdict.IMPORT_FAIL,
                f"the kernels of {axis} hold no code for {cell.target} (they hold {holds})",
            )
    audited = {str(each["file"]): str(each["sha256"]) for each in libraries}
    for stage, document in measured.items():
        for path, digest in _loaded(document):
            file = next((each for each in audited if f"/{path}".endswith(f"/{each}")), "")
            if file and audited[file] != digest:
                yield (
                    Verdict.INCONCLUSIVE,
                    f"{stage} loaded another {file} than was audited: {path}",
                )
            elif not file and _is_under_test(path):
                yield Verdict.INCONCLUSIVE, f"{stage} loaded {path}, which was not audited"


def limits(cell: Cell, inspect: Mapping[str, Any]) -> Iterator[str]:
    """Yield which candidates the driver has to compile first, and which have nothing to run."""
    for found in _found(cell, inspect).values():
        for candidate, library in found.items():
            if library["status"] == PTX_JIT:
                yield (
                    f"{candidate}: no machine code for {cell.target}; the driver compiles its PTX"
                    f" at first use, which takes {library['driver']}"
                )
            elif library["status"] == NONE:
                yield f"{candidate}: no code for {cell.target}"


def _found(cell: Cell, inspect: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the libraries of the candidates that the axes ask for, by axis and candidate."""
    names = {each["file"].rpartition("/")[2]: each for each in inspect.get("audit") or ()}
    return {
        axis: {
            candidate: library
            for candidate, start in starts.items()
            for name, library in names.items()
            if name.startswith(start)
        }
        for axis, starts in LIBRARIES.items()
        if asks_for(cell, axis)
    }


def _is_under_test(path: str) -> bool:
    """Say if it is a library of a candidate, or of vLLM's FlashAttention under any name."""
    starts = tuple(start for axis in LIBRARIES.values() for start in axis.values())
    name = path.rpartition("/")[2]
    return ".so" in name and (name.startswith(starts) or "/vllm_flash_attn/" in path)


def _loaded(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield path and sha256 of what a measuring stage had loaded, or inspect found installed.

    A loaded one has the absolute path under which it is mapped, an audited one that in its site.
    """
    listed = [*(document.get("extensions") or ())]
    for candidate in document.get("candidates") or ():
        listed += candidate.get("extensions") or ()
    yield from ((str(each["path"]), str(each["sha256"])) for each in listed)
