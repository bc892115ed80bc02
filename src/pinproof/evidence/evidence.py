"""The immutable record that one stage of one cell leaves behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from pinproof.plan.stage import Stage

SCHEMA = 1


class Outcome(StrEnum):
    """How a stage ended. Only OK carries data; INFRA, TIMEOUT and CANCELLED are tried again."""

    OK = "ok"
    FAILED = "failed"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    INFRA = "infra"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True where a repetition with the same inputs would say the same."""
        return self in (Outcome.OK, Outcome.FAILED, Outcome.CRASHED)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one stage of one cell did.

    ``digest`` names ``inputs``, everything that the stage read; ``data`` is what it measured
    ({} unless ``outcome`` is OK), with a list ``incomplete`` of what the machine kept it from;
    ``reason`` is one line, "" where OK; ``log`` is relative to
    the store; ``started`` is ISO 8601 in UTC; ``seconds`` is wall time.
    """

    cell: str
    stage: Stage
    digest: str
    outcome: Outcome
    reason: str = ""
    data: Mapping[str, Any]
    inputs: Mapping[str, Any]
    machine: Mapping[str, str]
    log: str = ""
    started: str
    seconds: float

    @property
    def incomplete(self) -> str:
        """What the machine kept the stage from seeing, the first of it; "" where nothing."""
        return str(next(iter(self.data.get("incomplete") or ()), ""))

    @property
    def is_final(self) -> bool:
        """True where the stage need not run again on these inputs."""
        return self.outcome.is_final and not self.incomplete

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, with its schema number and a checksum over all."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        raw = {"schema": SCHEMA, **values}
        return {**raw, "checksum": digest_of(raw)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Evidence:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else.

        That is also a record that was edited or damaged since, and one without a checksum.
        """
        values = dict(raw)
        checksum = values.pop("checksum")
        if digest_of(values) != checksum:
            raise ValueError("the checksum is not that of the record")
        schema = values.pop("schema")
        if schema != SCHEMA:
            raise ValueError(f"evidence of schema {schema!r}; this version reads {SCHEMA}")
        datetime.fromisoformat(values["started"])
        for name, kind in (("machine", dict), ("inputs", dict), ("data", dict), ("reason", str)):
            if not isinstance(values[name], kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        values["seconds"] = float(values["seconds"])
        values["stage"] = Stage(values["stage"])
        values["outcome"] = Outcome(values["outcome"])
        record = cls(**values)
        if digest_of(record.inputs) != record.digest:
            raise ValueError("the digest does not name the inputs")
        return record


def digest_of(inputs: Any) -> str:
    """Return the sha256 of `inputs` in canonical JSON: equal inputs, equal digest."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
