"""What the throughput stage asks of a measuring process: one JSON file.

The process answers in a `pinproof_cell.world.journal`: ``machine`` once per process, then ``begin``
and ``end`` of every job, so that the parent knows which job a crash interrupted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Job:
    """One candidate at one point."""

    candidate: str
    point: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the parent asks of one process.

    ``deadline`` is a time of the monotonic clock, which all processes of a boot share; after
    ``hang`` seconds a job is given up. ``eager`` are the candidates that no CUDA graph can
    capture. ``rule`` are the arguments of `pairs.StopRule`.
    """

    target: str
    axes: dict[str, str]
    seed: int
    number: int
    deadline: float
    hang: float
    journal: str
    jobs: tuple[Job, ...]
    eager: tuple[str, ...]
    rule: dict[str, float]

    def write(self, path: Path) -> None:
        """Write the task to `path`."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Task:
        """Read the task that `write` wrote to `path`."""
        values = json.loads(path.read_text(encoding="utf-8"))
        jobs = tuple(Job(**job) for job in values["jobs"])
        return cls(**{**values, "jobs": jobs, "eager": tuple(values["eager"])})
