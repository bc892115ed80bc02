"""What a process that may die leaves behind: a file of JSON lines, each flushed as it is written.

A "begin" line stands before each piece of work and an "end" line after it: the piece that was begun
and not ended is what the process died of.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Journal:
    """The lines at `path`, which need not be there yet; several processes may add to it in turn."""

    path: Path

    def add(self, kind: str, **facts: Any) -> None:
        """Append one line; once this returns it outlives the process."""
        line = json.dumps({"kind": kind, "at": time.time(), **facts})
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def size(self) -> int:
        """Return how many bytes it has: what is not longer has nothing new."""
        return self.path.stat().st_size if self.path.exists() else 0

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the lines of these kinds, or all; one that a dying process cut short is left out.

        What a successor writes behind such a torn line is read again from the next line on.
        """
        if not self.path.exists():
            return []
        found = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if not kinds or line["kind"] in kinds:
                found.append(line)
        return found

    def unfinished(self, *names: str) -> dict[str, Any] | None:
        """Return the first "begin" line without an "end" line of the same `names`, or None."""
        ended = {tuple(line[name] for name in names) for line in self.lines("end")}
        begun = self.lines("begin")
        return next((x for x in begun if tuple(x[name] for name in names) not in ended), None)

    def take_back(self, *names: str) -> None:
        """Drop the "begin" line that has no "end", of a process that was ended from outside."""
        begun = self.unfinished(*names)
        if begun is not None:
            left = [json.dumps(line) + "\n" for line in self.lines() if line != begun]
            self.path.write_text("".join(left), encoding="utf-8")
