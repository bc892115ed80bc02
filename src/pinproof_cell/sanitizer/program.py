"""What runs under a sanitizer: a candidate and a few calls, one after the other.

Run as ``python -m pinproof_cell.sanitizer.program``; what each call came to stands in the journal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinproof_cell.sanitizer.calls import by_id
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

RAN, REFUSED, RAISED = "RAN", "UNSUPPORTED", "ERROR"


def main(words: Sequence[str] | None = None) -> int:
    """Make the calls; returns 0 whatever they come to."""
    parser = argparse.ArgumentParser()
    for name in ("candidate", "target", "seed", "journal"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("calls", nargs="+")
    options = parser.parse_args(words)
    # The sanitizer is our parent: where it is killed, nobody else would end us.
    child.end_with_parent()
    journal = Journal(Path(options.journal))
    candidate, reason, facts = _load(options.candidate, options.target)
    journal.add("session", reason=reason, device=facts, version=candidate and candidate.version)
    for call in () if reason else options.calls:
        journal.add("begin", call=call)
        status, why = _make(candidate, call, int(options.seed), options.target)
        journal.add("end", call=call, status=status, reason=why)
    return 0


def _load(name: str, target: str) -> tuple[Any, str | None, Any]:
    """Return the candidate, why it cannot be called here, if so, and the device."""
    from pinproof_cell.candidates.distribution import failure

    try:
        from pinproof_cell import candidates
        from pinproof_cell.world import device

        candidate = candidates.get(name)
        return candidate, candidate.available(), device.facts(target)
    except (Exception, SystemExit) as error:
        return None, failure(error), None


def _make(candidate: Any, name: str, seed: int, target: str) -> tuple[str, str | None]:
    """Make one call, forward and where it says so backward, and read every number of its answer."""
    from pinproof_cell.candidates.distribution import failure

    case, device = by_id(name), "cpu" if target == "cpu" else "cuda"
    if missing := case.features - candidate.supports:
        return REFUSED, f"{candidate.name} does not admit {', '.join(sorted(missing))}"
    try:
        _call(candidate, case, seed, device)
    except NotImplementedError as error:
        return REFUSED, failure(error)
    except Exception as error:
        return RAISED, failure(error)
    return RAN, None


def _call(candidate: Any, case: Any, seed: int, device: str) -> None:
    import torch

    from pinproof_cell.suite import inputs

    call = inputs.generate(case, seed, device)
    torch.manual_seed(seed)
    with torch.no_grad():
        out, lse = candidate.forward(call)
        answers = [out, lse]
        if case.backward:
            dout = inputs.output_gradient(case, seed, device)
            answers += candidate.backward(dout, call, out, lse)
        for tensor in answers:
            if tensor is not None:
                # A row that was never written is seen by who reads it.
                float(torch.nan_to_num(tensor.float()).sum())
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
