"""What the verb `triage` says of log files: the known failures in them, or the first errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pinproof.errors import ConfigurationError
from pinproof.judge import triage
from pinproof.judge.triage import Finding
from pinproof.plan.stage import Stage

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Triaged:
    """One log: what is known of it, best first, and the first lines that state an error."""

    log: str
    findings: tuple[Finding, ...]
    errors: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """True where a finding explains the failure, and does not only accompany it."""
        return any(finding.explains for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return what was found as JSON values."""
        return {
            "log": self.log,
            "known": self.is_known,
            "findings": [
                {
                    "id": each.failure.id,
                    "severity": each.failure.severity,
                    "line": each.line,
                    "cause": each.failure.cause,
                    "remedy": each.failure.remedy,
                    "blame": each.failure.blame,
                    "source": each.failure.source,
                }
                for each in self.findings
            ],
            "errors": list(self.errors),
        }

    def text(self) -> str:
        """Return what was found for people."""
        lines = [self.log]
        for each in self.findings:
            lines += [
                f"  {each.failure.id} ({each.failure.severity})  {each.line}",
                f"    likely cause: {each.failure.cause}",
                f"    next step: {each.failure.remedy}",
            ]
        if not self.is_known:
            lines.append("  no known failure explains it; the first errors are:")
            lines += [f"    {line}" for line in self.errors]
        return "\n".join(lines)


def read(paths: Sequence[Path], stage: Stage | None = None) -> list[Triaged]:
    """Triage log files of `stage`. Raises ConfigurationError for one that cannot be read."""
    return [_one(path, stage) for path in paths]


def document(triaged: Sequence[Triaged]) -> dict[str, Any]:
    """Return what was found in the logs as JSON values."""
    return {"schema": SCHEMA, "logs": [each.to_json() for each in triaged]}


def _one(path: Path, stage: Stage | None) -> Triaged:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    return Triaged(
        log=str(path),
        findings=tuple(triage.findings(text, stage)),
        errors=tuple(triage.first_error(text).splitlines()),
    )
