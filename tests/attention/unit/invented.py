"""A known defect for the kernels of these tests."""

from __future__ import annotations

from pinproof_cell.judge import defects
from pinproof_cell.judge.defects import Defect


def defect(candidate: str) -> Defect:
    """Return one that `candidate` shows wherever its output is wrong, and nothing else."""
    return defects.parse(
        {
            **dict.fromkeys(("title", "upstream", "since", "sees", "avoid"), "invented"),
            "id": "invented",
            "candidates": {candidate: ""},
            "case": {"batch": "> 0"},
            "shows": [{"status": ["FAIL"], "check": "output"}],
            "smallest": {"seqlen_q": 1, "seqlen_k": 1},
        }
    )
