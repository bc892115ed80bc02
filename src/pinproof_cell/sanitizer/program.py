"""What runs under a sanitizer: a candidate and a few calls, one after the other.

Run as ``python -m pinproof_cell.sanitizer.program``; what each call came to stands in the journal.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pinproof_cell.sanitizer.calls import by_id
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

RAN, REFUSED, RAISED = "RAN", "UNSUPPORTED", "ERROR"

#: The innermost frame of a thread, as faulthandler writes it: file, line and function.
_INNERMOST = re.compile(r'most recent call first\):\n  File "([^"]+)", line (\d+) in (\S+)')


def main(words: Sequence[str] | None = None) -> int:
    """Make the calls; returns 0 whatever they come to."""
    told = options(words)
    # The sanitizer is our parent: where it is killed, nobody else would end us.
    child.end_with_parent()
    if told.stack:
        # A run that hangs is killed from outside, where nobody sees what it waits for.
        with Path(told.stack).open("w", encoding="utf-8") as stack:
            faulthandler.dump_traceback_later(float(told.after), file=stack)
            try:
                return _calls(told)
            finally:
                faulthandler.cancel_dump_traceback_later()
    return _calls(told)


def stood(stack: Path) -> str:
    """Return where a thread stood when its time was nearly over, or ""."""
    text = stack.read_text(encoding="utf-8", errors="replace") if stack.is_file() else ""
    # Of several threads the main one comes last, if they are not very many.
    found = _INNERMOST.findall(text)
    if not found:
        return ""
    file, line, function = found[-1]
    return f"in {function} ({'/'.join(Path(file).parts[-3:])}:{line})"


def _calls(told: argparse.Namespace) -> int:
    journal = Journal(Path(told.journal))
    journal.add("program", pid=os.getpid())
    candidate, reason, facts = load(told.candidate, told.target)
    journal.add("session", reason=reason, device=facts, version=candidate and candidate.version)
    device = "cpu" if told.target == "cpu" else "cuda"
    for call in () if reason else told.calls:
        journal.add("begin", call=call)
        status, why = _make(candidate, call, int(told.seed), device, unread=told.unread)
        journal.add("end", call=call, status=status, reason=why)
    return 0


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    for name in ("candidate", "target", "seed", "journal"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--unread", action="store_true", help="read no answer")
    parser.add_argument("--stack", help="a file that says where it stands after some time")
    parser.add_argument("--after", help="that time, in seconds")
    parser.add_argument("calls", nargs="+")
    return parser.parse_args(words)


def load(name: str, target: str) -> tuple[Any, str | None, Any]:
    """Return the candidate, why it cannot be called here, if so, and the device."""
    from pinproof_cell.candidates.distribution import failure

    try:
        from pinproof_cell import candidates
        from pinproof_cell.world import device

        candidate = candidates.get(name)
        return candidate, candidate.available(), device.facts(target)
    except (Exception, SystemExit) as error:
        return None, failure(error), None


def _make(
    candidate: Any, name: str, seed: int, device: str, *, unread: bool
) -> tuple[str, str | None]:
    """Make one call and read every number of its answer, unless it is to stay `unread`."""
    from pinproof_cell.candidates.distribution import failure

    case = by_id(name)
    if missing := case.features - candidate.supports:
        return REFUSED, f"{candidate.name} does not admit {', '.join(sorted(missing))}"
    try:
        found = answers(candidate, inputs_of(case, seed, device), seed)
        for tensor in [] if unread else found:
            _read(tensor)
        synchronize(device)
    except NotImplementedError as error:
        return REFUSED, failure(error)
    except Exception as error:
        return RAISED, failure(error)
    return RAN, None


def inputs_of(case: Any, seed: int, device: str) -> tuple[Any, Any]:
    """Return the call, and the gradient of its output or None."""
    from pinproof_cell.suite import inputs

    dout = inputs.output_gradient(case, seed, device) if case.backward else None
    return inputs.generate(case, seed, device), dout


def answers(candidate: Any, given: tuple[Any, Any], seed: int) -> list[Any]:
    """Call the candidate, forward and with a gradient backward; returns all that it answers."""
    import torch

    call, dout = given
    torch.manual_seed(seed)
    with torch.no_grad():
        out, lse = candidate.forward(call)
        found = [out, lse]
        if dout is not None:
            found += candidate.backward(dout, call, out, lse)
    return [tensor for tensor in found if tensor is not None]


def _read(tensor: Any) -> None:
    """Read every number: a row that was never written is seen by who reads it."""
    import torch

    float(torch.nan_to_num(tensor.float()).sum())


def synchronize(device: str) -> None:
    """Wait for all that was launched: errors show here at the latest."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
