"""Says what an audit found, for people."""

from __future__ import annotations

from tabulate import tabulate

from pinproof.audit.arch import Status
from pinproof.audit.audit import Audit
from pinproof.audit.library import Library

#: Symbols of torch that are shown of a library that lacks more.
SHOWN = 5


def text(audit: Audit) -> str:
    """Return the table of an audit, and below it what is broken."""
    rows = [_row(each) for each in audit.libraries]
    headers = ("library", "status", f"units for {audit.gpu}", "SASS", "PTX", "needs of the driver")
    lines = [f"{audit.subject}  {audit.wheel}".rstrip(), tabulate(rows, headers, tablefmt="simple")]
    for each in audit.libraries:
        lines += _broken(each, audit.torch)
    return "\n".join(lines)


def units(each: Library) -> str:
    """Return how the translation units of a library meet the GPU: ``85 NATIVE, 6 PTX-JIT``."""
    return ", ".join(f"{count} {status}" for status, count in each.units.items())


def _row(each: Library) -> tuple[str, ...]:
    sass = " ".join(name.removeprefix("sm_") for name in each.sass)
    return (each.file, str(each.status), units(each), sass, " ".join(each.ptx), each.driver)


def _broken(each: Library, torch: str) -> list[str]:
    lines = []
    if each.status is Status.UNREADABLE:
        lines.append(f"{each.file}: {each.problem}")
    if each.missing:
        more = f" and {len(each.missing) - SHOWN} more" if len(each.missing) > SHOWN else ""
        wanted = ", ".join(each.missing[:SHOWN])
        lines.append(f"{each.file}: {torch} has not: {wanted}{more}")
        lines.append("  likely cause: it was built against another torch; it cannot be imported")
    if each.load_error:
        lines.append(f"{each.file}: cannot be loaded: {each.load_error}")
    if each.disagreement:
        lines.append(f"{each.file}: {each.disagreement}")
    return lines
