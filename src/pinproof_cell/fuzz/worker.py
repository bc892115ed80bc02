"""The process that a candidate runs in while it is searched: a case a line, an answer a line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.session import Session
from pinproof_cell.world import child, device


def main(words: Sequence[str] | None = None) -> int:
    """Say who the candidate is, and then answer cases for as long as they come."""
    parser = argparse.ArgumentParser()
    for name, kind in (("candidate", str), ("device", str), ("seed", int), ("replies", int)):
        parser.add_argument(f"--{name}", required=True, type=kind)
    options = parser.parse_args(words, argparse.Namespace(target=None, journal=None, checks=None))
    child.end_with_parent()
    session = Session(options)
    session.prepare()
    with os.fdopen(options.replies, "w", encoding="utf-8") as replies:

        def reply(**facts: Any) -> None:
            replies.write(json.dumps(facts) + "\n")
            replies.flush()

        reply(**opened(session))
        for line in sys.stdin:
            answer(session, json.loads(line), reply)
    return 0


def opened(session: Session) -> dict[str, Any]:
    """Load the candidate; returns what it is. Its ``reason`` says why it cannot run, or None."""
    reason = session.open()
    facts = device.facts(session.device)
    if facts["kind"] != session.device:
        reason = "this machine has no CUDA device"
    session.target = facts["capability"]
    found = session.candidate
    return {
        "reason": reason,
        "version": None if found is None else found.version,
        "supports": [] if found is None else sorted(found.supports),
        "lse_on_empty_rows": None if found is None else found.lse_on_empty_rows,
        "device": facts,
    }


def answer(session: Session, asked: dict[str, Any], reply: Callable[..., None]) -> None:
    """Judge one case as the suite does; in a fork where that is asked, which may die of it."""
    forked = asked["forked"]
    if forked and os.fork():
        _, status = os.wait()
        if status:
            name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "exit"
            reply(died=name)
        return
    result = session.ask(read(asked["case"]))
    reply(
        status=result.status,
        findings=[finding.document() for finding in result.findings],
        stats=result.stats,
        infra=result.infra,
        lost=result.lost,
    )
    if forked:
        os._exit(0)


def write(case: Case, *, forked: bool = False) -> str:
    """Return the line that asks `case`."""
    return json.dumps({"case": asdict(case), "forked": forked})


def read(values: dict[str, Any]) -> Case:
    """Return the case whose fields JSON said."""
    lengths = tuple(map(tuple, values["lengths"]))
    return Case(**{**values, "window": tuple(values["window"]), "lengths": lengths})


if __name__ == "__main__":
    sys.exit(main())
