"""What the numbers of the candidates claim: those that were compared with exact arithmetic. Pure.

Every candidate that the cell holds counts: the pin carries them all, and torch's own kernel is
called in a vLLM process too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pinproof.judge.checks import NOT_RUN, PASS, UNSUPPORTED, Candidate, Check, Correctness, ended
from pinproof.judge.describe import describe
from pinproof.judge.limits import VERBS, grouped
from pinproof.judge.verdict import Claim, Verdict

if TYPE_CHECKING:
    from pinproof.matrix.matrixfile import Policy

_VERDICTS = {
    "CRASH": Verdict.CRASH,
    "HANG": Verdict.CRASH,
    "ERROR": Verdict.UNSAFE,
    "FAIL": Verdict.UNSAFE,
    "FLAKY": Verdict.FLAKY,
    "DEGRADED": Verdict.DEGRADED,
}


def harness(correctness: Correctness) -> Iterator[Claim]:
    """Claim from our own kernel: where it does not pass, no number here says anything."""
    if correctness.harness == NOT_RUN:
        yield Verdict.INCONCLUSIVE, f"the reference could not be run ({correctness.failure})"
    elif correctness.harness not in (PASS, ""):
        shown = correctness.failure or correctness.harness
        yield Verdict.HARNESS_BROKEN, f"the reference disagrees with the oracle ({shown})"
    elif correctness.harness and not correctness.votes:
        yield Verdict.HARNESS_BROKEN, "the reference was compared with the oracle in no check"


def claims(correctness: Correctness, inspect: Mapping[str, Any], policy: Policy) -> Iterator[Claim]:
    """Claim from the checks in the asked uses, candidate by candidate."""
    if not correctness.harness:
        return
    seen = {candidate.name: candidate for candidate in correctness.found}
    for item in inspect.get("candidates", ()):
        known = seen.get(item["name"])
        if item["available"] and not (known and known.checks):
            why = (known and known.reason) or "no check ran"
            yield Verdict.UNVERIFIED, f"{item['name']} is there and was not checked: {why}"
    if not correctness.candidates:
        yield Verdict.UNVERIFIED, "no attention was found to check"
    for candidate in correctness.candidates:
        yield from _of(candidate, candidate.asked(policy))


def _of(candidate: Candidate, checks: Sequence[Check]) -> Iterator[Claim]:
    passing = ended(checks, PASS)
    known = {defect.id: defect for defect in candidate.known}
    for group in grouped(checks):
        first = group[0]
        named = f"; {known[first.defect]}" if first.defect in known else ""
        yield (
            _VERDICTS[first.status],
            f"{candidate.name} {VERBS[first.status]} with {describe(group, passing)}: "
            f"{first.told} ({len(group)} of {len(checks)} checks, first {first.id}{named})",
        )
    if not passing:
        yield Verdict.UNVERIFIED, f"{candidate.name} passed none of {len(checks)} checks"
    for check in ended(checks, NOT_RUN):
        verdict = Verdict.INCONCLUSIVE if check.infra else Verdict.UNVERIFIED
        yield verdict, f"{candidate.name}: {check.id} did not run: {check.told}"
    odd = [c for c in checks if c.status not in {*_VERDICTS, PASS, UNSUPPORTED, NOT_RUN}]
    for check in odd[:1]:
        yield Verdict.UNVERIFIED, f"{candidate.name}: {check.id} ended as {check.status}"


def worst_z(correctness: Correctness, policy: Policy) -> float | None:
    """Return the largest max|z| of the asked uses, of outputs and gradients; None where none is."""
    found = [
        abs(value)
        for candidate in correctness.candidates
        for check in candidate.asked(policy)
        for name, value in check.stats.items()
        if name.endswith("max_z") and isinstance(value, int | float)
    ]
    # NaN compares with nothing; a z that is no number is as bad as any.
    return max((math.inf if math.isnan(value) else value for value in found), default=None)


def proof(correctness: Correctness, policy: Policy) -> Claim:
    """Claim SAFE, and what that rests on; UNVERIFIED where there is nothing that it could rest on.

    This guards the word SAFE by itself, whatever the other claims overlook: our own kernel must
    have been judged and have passed, and a candidate must have passed a check.
    """
    checks = [check for item in correctness.candidates for check in item.asked(policy)]
    names = ", ".join(item.name for item in correctness.candidates)
    refused = len(ended(checks, UNSUPPORTED))
    tail = f", {refused} refused" if refused else ""
    passed = len(ended(checks, PASS))
    if correctness.harness != PASS or not correctness.votes or not passed:
        return Verdict.UNVERIFIED, "no check has compared the numbers of an attention"
    return Verdict.SAFE, f"{passed} of {len(checks)} checks pass{tail} ({names})"
