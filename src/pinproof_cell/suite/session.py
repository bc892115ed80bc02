"""One process of the suite: a candidate, loaded once, and the checks that are put to it.

Both child programs are this: `tests/attention`, where pytest asks, and `check_child`, which needs
no pytest. torch and the candidate are imported as the session opens, since either may fail.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinproof_cell.suite import checks
from pinproof_cell.suite.checks import Check
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

if TYPE_CHECKING:
    from pinproof_cell.suite.trial import Result

#: The exit status of a process whose device answers no more: the rest needs a fresh one.
DEVICE_LOST = 70


def arguments(add: Any) -> None:
    """Declare what a session is told, with `add`: argparse's, or pytest's own."""
    add("--candidate", default="triton-ref", help="name, or FILE.py:NAME")
    add("--device", default="cpu", choices=checks.DEVICES)
    add("--target", default=None, help="whose thresholds: cpu, sm_90, sm_120")
    add("--seed", default=0, type=int)
    add("--journal", default=None, type=Path, help="checks begun in it are left out")
    add("--checks", default=None, type=Path, help="JSON file with the list of ids to run")


class Session:
    """A candidate under test; ``reason`` says why it cannot be asked anything, if so."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name: str = options.candidate
        self.device: str = options.device
        self.target: str = options.target or options.device
        self.seed: int = options.seed
        self.journal = Journal(options.journal) if options.journal else None
        self.chosen: Path | None = options.checks
        self.candidate: Any = None
        self.reason: str | None = None

    def prepare(self) -> None:
        """Set what torch, Triton and OpenBLAS read when they are imported."""
        if self.device == "cpu":
            os.environ.setdefault("TRITON_INTERPRET", "1")
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        if self.journal:
            child.end_with_parent()

    def checks(self) -> Iterator[Check]:
        """Yield the checks that were chosen and that no process before this one has begun."""
        names = [check.id for check in checks.suite("full", self.device)]
        if self.chosen:
            names = json.loads(self.chosen.read_text(encoding="utf-8"))
        begun = {line["check"] for line in self.journal.lines("begin")} if self.journal else ()
        yield from (checks.by_id(name) for name in names if name not in begun)

    def open(self) -> str | None:
        """Load the candidate and tell the journal; returns why it cannot run here, or None."""
        found: dict[str, Any] = dict.fromkeys(("version", "device", "supports"))
        try:
            import torch

            if self.device == "cpu":
                torch.set_num_threads(1)
            # A candidate can end the process as it is imported: then this line is the last.
            if self.journal:
                self.journal.add("loading", candidate=self.name)
            from pinproof_cell import candidates
            from pinproof_cell.suite.cases import FEATURES
            from pinproof_cell.world import device, loaded

            before = torch.get_default_device()
            self.candidate = candidates.get(self.name)
            found["version"] = self.candidate.version
            found["supports"] = sorted(map(str, self.candidate.supports))
            found["lse_on_empty_rows"] = self.candidate.lse_on_empty_rows
            unknown = sorted(map(str, self.candidate.supports - FEATURES))
            self.reason = self.candidate.available()
            if unknown:
                self.reason = f"`supports` names unknown features: {', '.join(unknown)}"
            if torch.get_default_device() != before:
                self.reason = "its import changed torch's default device"
            found["device"] = device.facts(self.target)
            found["extensions"] = loaded.extensions()
        except (Exception, SystemExit) as error:
            from pinproof_cell.candidates.distribution import failure

            self.reason = failure(error)
        if self.journal:
            self.journal.add("session", candidate=self.name, reason=self.reason, **found)
        return self.reason

    def ask(self, check: Check) -> Result:
        """Put one check to the candidate and tell the journal.

        Ends the process where the device is lost, if there is a journal to tell that.
        """
        from pinproof_cell.judge import thresholds
        from pinproof_cell.suite.examine import examine

        if self.journal:
            self.journal.add("begin", check=check.id)
        result = examine(
            self.candidate,
            check,
            seed=self.seed,
            device=self.device,
            thresholds=thresholds.load(self.target),
        )
        if self.journal:
            self.journal.add(
                "end",
                check=check.id,
                status=result.status,
                stats=result.stats,
                findings=[finding.document() for finding in result.findings],
                infra=result.infra,
                signal=None,
                seconds=round(result.seconds, 4),
            )
            if result.lost:
                # The context is broken for every later check: the supervisor starts afresh.
                os._exit(DEVICE_LOST)
        return result
