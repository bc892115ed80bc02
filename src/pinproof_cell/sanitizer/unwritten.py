"""One call without a tool, in memory full of NaN bits: what nobody wrote in its answer is NaN.

initcheck says that we read what nobody wrote; this says if that is so. Run as ``python -m
pinproof_cell.sanitizer.unwritten``; the answer stands in the journal. Needs torch's allocator.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pinproof_cell.sanitizer import program, tool
from pinproof_cell.sanitizer.calls import by_id
from pinproof_cell.sanitizer.report import Hazard
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

#: All of the answer was written; the poison shows in it; it may have come from other memory.
WRITTEN, UNWRITTEN, UNPROVEN = "WRITTEN", "UNWRITTEN", "UNPROVEN"


def is_of_torch(hazard: Hazard) -> bool:
    """Say if a kernel of torch's own read it, as one does when we read an answer."""
    return not hazard.warning and "at::native::" in hazard.kernel


def weighed(hazard: Hazard, again: Mapping[str, tuple[str, str]]) -> Hazard:
    """Return `hazard` with what making calls `again` has shown: name -> what `look` returned.

    It becomes a warning where each of them was WRITTEN, and stands otherwise.
    """
    if not is_of_torch(hazard) or not again:
        return hazard
    for worst in (UNWRITTEN, UNPROVEN):
        for name, (verdict, told) in again.items():
            if verdict == worst:
                return replace(hazard, note=f"{told} ({name})")
    return replace(hazard, warning=True, note=next(iter(again.values()))[1])


def look(candidate: str, call: str, *, target: str, seed: int, scratch: Path) -> tuple[str, str]:
    """Make the call in a fresh child; returns one of the three and what it saw, in words."""
    journal = Journal(scratch / "unwritten.jsonl")
    journal.path.unlink(missing_ok=True)
    words = ["-m", __name__, "--candidate", candidate, "--target", target, "--seed", str(seed)]
    ended = child.run([*words, "--journal", str(journal.path), call], target=target, timeout=120)
    for line in journal.lines("seen"):
        return line["verdict"], line["reason"]
    return UNPROVEN, f"the call was not made again: {ended.reason or 'no word of it'}"


def main(words: Sequence[str] | None = None) -> int:
    """Make one call and say what its answer shows; returns 0 whatever that is."""
    options = program.options(words)
    child.end_with_parent()
    for name in tool.ENVIRONMENT:
        os.environ.pop(name, None)  # torch reads it when it first allocates
    candidate, reason, _ = program.load(options.candidate, options.target)
    verdict, told = UNPROVEN, str(reason)
    if not reason:
        device = "cpu" if options.target == "cpu" else "cuda"
        verdict, told = _seen(candidate, options.calls[0], int(options.seed), device)
    Journal(Path(options.journal)).add("seen", verdict=verdict, reason=told)
    return 0


def _seen(candidate: object, name: str, seed: int, device: str) -> tuple[str, str]:
    import torch

    from pinproof_cell.candidates.distribution import failure
    from pinproof_cell.suite.poison import Poisoned

    given = program.inputs_of(by_id(name), seed, device)
    memory = Poisoned(device)
    try:
        with memory:
            found = program.answers(candidate, given, seed)
        program.synchronize(device)
        wrong = sum(int(torch.isnan(tensor).sum()) for tensor in found)
        sure = all(memory.held(tensor) for tensor in found)
    except Exception as error:
        return UNPROVEN, f"made again in poisoned memory it raises: {failure(error)}"
    if wrong:
        return (
            UNWRITTEN,
            f"made again in memory full of NaN, {wrong} elements of the answer are NaN",
        )
    if not sure:
        return UNPROVEN, "made again, its answer is not known to come from poisoned memory"
    return WRITTEN, "made again in memory full of NaN bits, no element of the answer is NaN"


if __name__ == "__main__":
    sys.exit(main())
