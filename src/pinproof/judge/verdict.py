"""The verdicts, and which of several claims about a cell is the one that is told.

Every check of `judgement.judge` may raise a *claim*, a verdict with its reason; the first one in
`PRECEDENCE` is the cell's. The table, in that order:

=============== ====================================================================================
EXCLUDED        a rule forbids the combination; nothing was tried
UNBUILDABLE     resolve, build or install failed by the combination's own doing
IMPORT-FAIL     an import that the axes ask for fails, or what they ask for is not there: a
                candidate, a version, torch's CUDA
CRASH           a candidate crashed or hung in an asked use, or took its stage down with it
HARNESS-BROKEN  our reference disagrees with the oracle, or our own program failed
UNSAFE          a candidate gave wrong numbers or raised, in an asked use or while it was timed, or
                a sanitizer found a hazard in it
FLAKY           a candidate gave other numbers each time, in an asked use
DEGRADED        a candidate is less precise than a correct kernel must be, in an asked use
SLOW            the throughput interval lies wholly below the policy's minimum
INCONCLUSIVE    the machine, the network, the disk or a time limit kept a stage from its end
UNVERIFIED      a check did not run, ran on another GPU, or did not cover what the uses call
SAFE            nothing of the above
=============== ====================================================================================

Why this order. A claim stands when its own evidence is whole: a crash is a fact whatever our
reference is worth, so CRASH and what lies before it come first. A broken harness voids everything
that compares numbers, for and against, so it precedes UNSAFE to SLOW. A later failure of the
machine takes nothing from wrong numbers that were seen, so INCONCLUSIVE follows them, but always
precedes SAFE.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What is said of a cell: from worst to best, then the three that stand beside that order."""

    EXCLUDED = "EXCLUDED"
    UNBUILDABLE = "UNBUILDABLE"
    IMPORT_FAIL = "IMPORT-FAIL"
    CRASH = "CRASH"
    UNSAFE = "UNSAFE"
    FLAKY = "FLAKY"
    DEGRADED = "DEGRADED"
    SLOW = "SLOW"
    SAFE = "SAFE"
    UNVERIFIED = "UNVERIFIED"
    INCONCLUSIVE = "INCONCLUSIVE"
    HARNESS_BROKEN = "HARNESS-BROKEN"

    @property
    def is_bad(self) -> bool:
        """True where evidence speaks against the combination."""
        return self in _BAD

    @property
    def is_infrastructure(self) -> bool:
        """True where the machine or Pinproof failed, and nothing is said of the combination."""
        return self in (Verdict.INCONCLUSIVE, Verdict.HARNESS_BROKEN)


_BAD = frozenset(
    {
        Verdict.UNBUILDABLE,
        Verdict.IMPORT_FAIL,
        Verdict.CRASH,
        Verdict.UNSAFE,
        Verdict.FLAKY,
        Verdict.DEGRADED,
        Verdict.SLOW,
    }
)

#: The table above: the first claim in this order is the verdict.
PRECEDENCE = (
    Verdict.EXCLUDED,
    Verdict.UNBUILDABLE,
    Verdict.IMPORT_FAIL,
    Verdict.CRASH,
    Verdict.HARNESS_BROKEN,
    Verdict.UNSAFE,
    Verdict.FLAKY,
    Verdict.DEGRADED,
    Verdict.SLOW,
    Verdict.INCONCLUSIVE,
    Verdict.UNVERIFIED,
    Verdict.SAFE,
)

#: A verdict and the reason for it, in a line.
Claim = tuple[Verdict, str]
