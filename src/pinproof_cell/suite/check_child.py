"""The process that a provider runs in: its cases, one after the other, into a journal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinproof_cell.suite.supervise import REPEATS, Journal
from pinproof_cell.world import child


def main(words: Sequence[str] | None = None) -> int:
    """Run the cases that no child before this one has begun."""
    parser = argparse.ArgumentParser()
    for name in ("candidate", "device", "target", "seed", "journal", "cases"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args(words)
    child.end_with_parent()
    journal = Journal(Path(options.journal))
    candidate = _load(options, journal)
    if candidate is None:
        return 3
    begun = set(journal.started())
    for case in json.loads(Path(options.cases).read_text(encoding="utf-8")):
        if case not in begun:
            _run(candidate, case, options, journal)
    return 0


def _load(options: argparse.Namespace, journal: Journal) -> Any:
    """Return the candidate, guarded, or None where it has a reason not to run."""
    found = None
    try:
        from pinproof_cell import candidates
        from pinproof_cell.suite.cases import FEATURES
        from pinproof_cell.suite.guard import Guarded
        from pinproof_cell.world import device

        found = Guarded(candidates.get(options.candidate))
        unknown = sorted(found.supports - FEATURES)
        reason = found.available()
        if unknown:
            reason = f"`supports` names unknown features: {', '.join(map(str, unknown))}"
        if options.device == "cpu":
            import torch

            torch.set_num_threads(1)
        facts = device.facts(options.target)
    except Exception as error:
        from pinproof_cell.candidates.distribution import failure

        reason, facts = failure(error), None
    journal.add(
        "session",
        candidate=options.candidate,
        version=found.version if found else None,
        reason=reason,
        device=facts,
    )
    return None if reason else found


def _run(candidate: Any, case: str, options: argparse.Namespace, journal: Journal) -> None:
    from pinproof_cell.candidates.distribution import failure
    from pinproof_cell.judge import thresholds
    from pinproof_cell.suite.cases import suite
    from pinproof_cell.suite.examine import (
        CRASH,
        ERROR,
        UNSUPPORTED,
        DeviceLostError,
        Result,
        examine,
    )
    from pinproof_cell.suite.repeats import repeat

    journal.add("start", case=case)
    common = {
        "seed": int(options.seed),
        "device": options.device,
        "thresholds": thresholds.load(options.target),
    }
    try:
        if case.startswith(REPEATS):
            result = repeat(candidate, count=int(case.removeprefix(REPEATS)), **common)
        else:
            by_id = {known.id: known for known in suite()}
            result = examine(candidate, by_id[case], **common)
    except DeviceLostError as lost:
        result = Result(CRASH, {}, (str(lost),), 0.0)
    except NotImplementedError as error:
        result = Result(UNSUPPORTED, {}, (failure(error),), 0.0)
    except Exception as error:
        result = Result(ERROR, {}, (failure(error),), 0.0)
    journal.add(
        "end",
        case=case,
        status=result.status,
        stats=result.stats,
        reasons=list(result.reasons),
        signal=None,
        seconds=round(result.seconds, 4),
    )
    if result.status == CRASH:
        # The context is broken for every later case: the supervisor starts a fresh process.
        os._exit(70)


if __name__ == "__main__":
    sys.exit(main())
