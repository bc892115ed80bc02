"""Ask a candidate case after case, in a child that is replaced when it dies."""

from __future__ import annotations

import json
from typing import Any

from pinproof_cell.fuzz import worker
from pinproof_cell.fuzz.groups import Answer
from pinproof_cell.suite.cases import Case
from pinproof_cell.suite.supervise import START_LIMIT
from pinproof_cell.world import child

#: How long a case may take, in seconds: on a GPU its first launch compiles.
CASE_LIMIT = {"cpu": 20.0, "cuda": 120.0}


class UnavailableError(Exception):
    """The candidate cannot be asked anything here."""


class Interview:
    """One child of one candidate, and its successors."""

    def __init__(self, candidate: str, device: str, seed: int) -> None:
        self._program = ["-m", "pinproof_cell.fuzz.worker", "--candidate", candidate]
        self._program += ["--device", device, "--seed", str(seed)]
        self.device = device
        self.deaths = 0
        self._child: child.Conversation | None = None

    def open(self) -> dict[str, Any]:
        """Start a child; returns what it says of itself. Raises UnavailableError."""
        self._child = child.Conversation(self._program, target=self.device)
        said = self._child.hear(START_LIMIT)
        if isinstance(said, child.Ended):
            raise UnavailableError(f"loading it ended the process: {said.reason}")
        session: dict[str, Any] = json.loads(said)
        if session["reason"]:
            self.close()
            raise UnavailableError(session["reason"])
        return session

    def ask(self, case: Case, *, forked: bool = False, limit: float | None = None) -> Answer:
        """Return what the candidate's child says of `case`, or how it died of it.

        With `forked` a fork of the child dies instead, which costs no new start; only where there
        is no GPU, whose context a fork cannot use. `limit` is how long it may take, in seconds.
        """
        if self._child is None:
            self.open()
        assert self._child is not None  # noqa: S101  (open saw to that)
        self._child.say(worker.write(case, forked=forked and self.device == "cpu"))
        said = self._child.hear(limit or CASE_LIMIT[self.device])
        if isinstance(said, child.Ended):
            self._child = None
            self.deaths += 1
            text = said.reason or "the process ended inside the call"
            return _died("timeout" if said.timed_out else said.signal or "exit", text)
        answer = json.loads(said)
        if "died" in answer:
            return _died(answer["died"], f"killed by {answer['died']}")
        if answer["lost"]:
            self.deaths += 1
            self.close()
        return Answer(answer["status"], tuple(answer["findings"]), stats=answer["stats"])

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.end()
            self._child = None


def _died(signal: str, text: str) -> Answer:
    if signal in child.OUTSIDE:
        # The machine's memory, or somebody's hand: the candidate said nothing.
        return Answer("NOT-RUN", ({"check": "process", "statistic": signal, "text": text},))
    status = "HANG" if signal == "timeout" else "CRASH"
    finding = {"check": "process", "statistic": signal, "text": text, "value": None, "limit": None}
    return Answer(status, (finding,), signal)
