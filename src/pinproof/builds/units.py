"""The units of a build: those that are compiled as one, how far it is, and how long each took."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: What ninja says when it has run a command: how many are done, of how many, and which.
_DONE = re.compile(r"^\s*\[(\d+)/(\d+)\]\s(.*)")
_OBJECT = re.compile(r"([^\s/]+)\.o(?=[\s'\"]|$)")


@dataclass(frozen=True, kw_only=True)
class Union:
    """Units that hold nothing in a build, and are compiled as one: each costs 13 s to be read.

    ``names`` are files of ``folder`` that ``listing`` names one after the other, as strings of
    Python; ``into`` is the file that includes them all.
    """

    name: str
    listing: str
    folder: str
    names: tuple[str, ...]
    into: str

    def attempt(self, tree: Path) -> bool:
        """Make one unit of them; False, and nothing done, where the tree is written otherwise."""
        listing, folder = tree / self.listing, tree / self.folder
        if not all((folder / name).is_file() for name in self.names):
            return False
        entries = [f'"{self.folder}/{name}",' for name in self.names]
        text = listing.read_text(encoding="utf-8")
        if any(text.count(entry) != 1 for entry in entries):
            return False
        text = text.replace(entries[0], f'"{self.folder}/{self.into}",')
        for entry in entries[1:]:
            text = re.sub(rf"[ \t]*{re.escape(entry)}\n?", "", text)
        includes = "".join(f'#include "{name}"\n' for name in self.names)
        (folder / self.into).write_text(includes, encoding="utf-8")
        listing.write_text(text, encoding="utf-8")
        return True


@dataclass
class Progress:
    """Hands the lines of a build on, those of ninja as how far it is: commands fill a screen."""

    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)

    def __call__(self, line: str) -> None:
        """Take a line of the output."""
        found = _DONE.match(line)
        if not found:
            self.say(line)
            return
        done, total, command = found.groups()
        # The last object that a compiler is told is the one that it writes.
        objects = _OBJECT.findall(command)
        what = "linked" if len(objects) > 2 else objects[-1] if objects else command[:60]
        self.say(f"[{done}/{total}] {time.monotonic() - self.began:.0f} s: {what}")


def seconds(tree: Path) -> dict[str, float]:
    """Return how long each unit under `tree` took, by its name, the slowest first.

    That is from ninja's logs (version 5 to 7: start and end in ms, mtime, output, a hash). A unit
    that an earlier try compiled counts with the time that it took then.
    """
    found: dict[str, float] = {}
    for log in sorted(tree.rglob(".ninja_log")):
        found.update(_rows(log))
    return dict(sorted(found.items(), key=lambda row: -row[1]))


def _rows(log: Path) -> Iterator[tuple[str, float]]:
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.split("\t")
        if len(parts) == 5 and parts[0].isdigit() and parts[1].isdigit():
            yield Path(parts[3]).stem, (int(parts[1]) - int(parts[0])) / 1000
