"""What compute-sanitizer says, read from its text.

Each of its lines begins with nine equals signs. A finding is a line of one blank and the indented
lines below it; the last lines sum up. Formats: "Compute Sanitizer", section by tool, 2021 to 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

PREFIX = "========="

_LEVEL = re.compile(r"(?:error|warning|info): ", re.IGNORECASE)
_HAZARD = re.compile(
    rf"(?:{_LEVEL.pattern})?(?:\([^)]*\) )?"
    r"(?:Invalid |Potential |Race reported |Uninitialized |Barrier error|Deadlock |Leaked "
    r"|Malloc/Free error|Tensor Memory |Host API )",
    re.IGNORECASE,
)
#: A tool that says so has not seen everything: that is no clean run.
_TROUBLE = re.compile(
    r"Internal Sanitizer Error|Error: |Target application |Program hit |Device not supported"
)
#: Lines that tell of nothing found.
_REMARK = re.compile(r"COMPUTE-SANITIZER$|\w+ SUMMARY: ")
_SUMMARY = re.compile(
    r"(?:ERROR SUMMARY: |RACECHECK SUMMARY: .*\()([\d,]+) errors?(?! were not printed)\b"
)

#: Where, in the words of several releases: KERNEL+0x50 in FILE:6, KERNEL():0x160 in FILE:6,
#: 0xda0 in FILE:175:KERNEL, 0x88 in KERNEL.
_PLACES = (
    re.compile(r"0x[0-9a-f]+ in (?P<file>\S.*?:\d+):(?P<kernel>\S.*)"),
    re.compile(r"0x[0-9a-f]+ in (?P<kernel>\S.*)"),
    re.compile(r"(?P<kernel>(?!0x[0-9a-f]+\b)\S.*?)[+:]0x[0-9a-f]+(?: in (?P<file>\S.*:\d+))?"),
)
_FRAME = re.compile(r"\b(?:at|Device Frame:) ?(?P<place>\S.*?)(?: \[[\d,]+ hazards?\])?$")
_ADDRESS = re.compile(r"(?:Address|Access to|detected at __\w+__) (?P<address>0x[0-9a-f]+.*)")
_RACE = re.compile(r"(?:between|and) (\w+) access at ")


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """One finding; ``times`` it was seen at that place.

    ``what`` is the tool's first line without its place, ``where`` files and lines, ``address`` what
    it says of the address: each "" where it says nothing. ``warning`` is True where it may be
    intended, or misread, and ``note`` says why where that is known.
    """

    what: str
    kernel: str = ""
    where: str = ""
    address: str = ""
    warning: bool = False
    times: int = 1
    note: str = ""

    def __str__(self) -> str:
        place = f" in {self.kernel}" if self.kernel else ""
        place += f" at {self.where}" if self.where else ""
        told = f"{self.what}{place}" + (f", address {self.address}" if self.address else "")
        return f"{told}: {self.note}" if self.note else told


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a run of the tool says; ``errors`` is its own count, None where it never came.

    ``unknown`` are first lines in words that we do not know, each once.
    """

    hazards: tuple[Hazard, ...]
    errors: int | None
    troubles: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """True where the tool came to its end and missed nothing that it knows of."""
        return self.errors is not None and not self.troubles


def parse(text: str) -> Report:
    """Read the tool's output; lines of the program beside it are left out."""
    blocks = list(_blocks(text))
    hazards = [_hazard(block) for block in blocks if _HAZARD.match(block[0])]
    others = [block[0] for block in blocks if not _HAZARD.match(block[0])]
    counts = [int(match[1].replace(",", "")) for head in others if (match := _SUMMARY.match(head))]
    return Report(
        hazards=_counted(hazards),
        errors=sum(counts) if counts else None,
        troubles=tuple(dict.fromkeys(head for head in others if _TROUBLE.match(head))),
        unknown=tuple(
            dict.fromkeys(
                head for head in others if not (_TROUBLE.match(head) or _REMARK.match(head))
            )
        ),
    )


def _blocks(text: str) -> Iterator[list[str]]:
    """Yield each finding or remark: its first line, then those indented below it."""
    block: list[str] = []
    for line in text.splitlines():
        if not line.startswith(PREFIX):
            continue
        said = line.removeprefix(PREFIX)
        if said.startswith("  ") and block:
            block.append(said.strip())
            continue
        if block:
            yield block
        block = [said.strip()] if said.strip() else []
    if block:
        yield block


def _hazard(block: Sequence[str]) -> Hazard:
    head = block[0]
    device = [line for line in block if not line.startswith("Host Frame")]
    places = [_place(found["place"]) for line in device if (found := _FRAME.search(line))]
    kernels = [kernel for kernel, _ in places if kernel]
    files = dict.fromkeys(file for _, file in places if file)
    addresses = [found["address"] for line in block if (found := _ADDRESS.search(line))]
    return Hazard(
        what=_what(head, block),
        kernel=kernels[-1] if kernels else "",  # the outermost frame
        where=", ".join(files),
        address=addresses[0].rstrip(" :") if addresses else "",
        warning=head.lower().startswith(("warning", "info")),
    )


def _place(text: str) -> tuple[str, str]:
    """Return kernel, and file and line, of a place; "" for what it does not say."""
    for form in _PLACES:
        if found := form.fullmatch(text):
            file = found.groupdict().get("file") or ""
            return found["kernel"], file.rpartition("/")[2]
    return "", ""


def _what(head: str, block: Sequence[str]) -> str:
    """Return the first line without its level, and without what stands in fields of its own."""
    said = _LEVEL.sub("", head, count=1)
    if said.startswith("Race"):
        return f"Race between {' and '.join(_RACE.findall(' '.join(block)))} access"
    return re.sub(r" at __\w+__ 0x.*$", "", said).rstrip(" :.")


def _counted(hazards: Iterable[Hazard]) -> tuple[Hazard, ...]:
    """Count findings of one kind at one place as one, whatever their address."""
    found: dict[tuple[str, str, str], Hazard] = {}
    for hazard in hazards:
        key = (hazard.what, hazard.kernel, hazard.where)
        known = found.get(key)
        found[key] = replace(known, times=known.times + 1) if known else hazard
    return tuple(found.values())
