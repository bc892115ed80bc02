"""What the evidence and the policy together say of a cell. Pure.

Every check below may raise a *claim*, a verdict with its reason; the first one in `PRECEDENCE`
is the cell's. The table, in that order:

=============== ====================================================================================
EXCLUDED        a rule forbids the combination; nothing was tried
UNBUILDABLE     resolve, build or install failed by the combination's own doing
IMPORT-FAIL     an import that the axes ask for fails, or the asked candidate is not there
CRASH           a candidate crashed or hung in an asked use, or took its stage down with it
HARNESS-BROKEN  our reference disagrees with the oracle, or our own program failed
UNSAFE          a candidate gave wrong numbers or raised, in an asked use or while it was timed
FLAKY           a candidate gave other numbers each time, in an asked use
DEGRADED        a candidate is less precise than a correct kernel must be, in an asked use
SLOW            the throughput interval lies wholly below the policy's minimum
INCONCLUSIVE    the machine, the network, the disk or a time limit ended a stage
UNVERIFIED      a check did not run, ran on another GPU, or did not cover what the uses call
SAFE            nothing of the above
=============== ====================================================================================

Why this order. A claim stands when its own evidence is whole: a crash is a fact whatever our
reference is worth, so CRASH and what lies before it come first. A broken harness voids everything
that compares numbers, for and against, so it precedes UNSAFE to SLOW. A later failure of the
machine takes nothing from wrong numbers that were seen, so INCONCLUSIVE follows them, but always
precedes SAFE.

Which candidates count. For numbers, every one that the cell holds: the pin carries them all, and
torch's own kernel is called in a vLLM process too. For speed, only what the cell is about (vLLM's
kernels where vllm is an axis, else flash-attn, else torch's own): a fast kernel of torch does not
make vLLM fast.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pinproof.errors import ExitCode
from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.judge import coverage
from pinproof.judge.limits import VERBS, asked, describe, detail, grouped, ids, limits
from pinproof.judge.speed import Speed, asks_for, fastest
from pinproof.plan.stage import Stage

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell
    from pinproof.matrix.matrixfile import Policy


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

#: Which of several claims is the verdict; the docstring above says why.
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

#: What the end of a stage claims. A signal that ends resolve, build or install came from the
#: machine (a compiler that crashes makes its build *fail*). The cell's own program exits 0
#: whatever candidates do, so where it fails the harness is broken. It also ends the children that
#: hang: a stage that reaches its own limit says that the machine is slow. All else: INCONCLUSIVE.
_ENDS: dict[Stage, dict[Outcome, Verdict]] = {
    Stage.RESOLVE: {Outcome.FAILED: Verdict.UNBUILDABLE},
    Stage.BUILD: {Outcome.FAILED: Verdict.UNBUILDABLE},
    Stage.INSTALL: {Outcome.FAILED: Verdict.UNBUILDABLE},
    Stage.INSPECT: {Outcome.FAILED: Verdict.HARNESS_BROKEN, Outcome.CRASHED: Verdict.IMPORT_FAIL},
    Stage.CORRECTNESS: {Outcome.FAILED: Verdict.HARNESS_BROKEN, Outcome.CRASHED: Verdict.CRASH},
    Stage.THROUGHPUT: {Outcome.FAILED: Verdict.HARNESS_BROKEN, Outcome.CRASHED: Verdict.CRASH},
}

_CASE_VERDICT = {
    "CRASH": Verdict.CRASH,
    "HANG": Verdict.CRASH,
    "ERROR": Verdict.UNSAFE,
    "FAIL": Verdict.UNSAFE,
    "FLAKY": Verdict.FLAKY,
    "DEGRADED": Verdict.DEGRADED,
}

#: No kernel sends these to itself: the kernel's memory killer or a person does.
_FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})

#: The machine had no memory left: another process had it.
_NO_ROOM = re.compile(r"(?i)out of memory|cannot allocate memory|killed by SIGKILL")

#: A timed call that never came back, and our own reference failing beside the candidate.
_HANG = re.compile(r"(?i)no answer|hung|timed out")
_OURS = re.compile(r"(?i)reference (?:raised|failed|gave)")

#: A candidate that is there and could not be loaded, unlike one that is for another architecture.
_UNLOADABLE = re.compile(r"undefined symbol|cannot open shared object|unavailable due to|DLL load")

#: An import that fails like this fails by the lack of a driver.
_NO_DRIVER = re.compile(r"libcuda\.so\.1|no NVIDIA driver|driver on your system is too old")

Claim = tuple[Verdict, str]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A cell's verdict, its first reason, and the numbers that the table shows.

    ``limits`` are calls outside the asked uses that fail, and what could not be measured.
    ``worst_z`` is the largest max|z| in the asked uses (may be infinite). ``ratio`` is the time of
    the Triton baseline over that of ``fastest``, the geometric mean over its points, with its
    interval ``low`` to ``high``; ``baseline`` says how Triton ran. ``ran`` is True where
    a candidate was really called.
    """

    verdict: Verdict
    reason: str
    limits: tuple[str, ...] = ()
    worst_z: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    fastest: str = ""
    baseline: str = ""
    seconds: float = 0.0
    ran: bool = False


def judge(
    cell: Cell,
    evidence: Mapping[Stage, Evidence],
    policy: Policy,
    checks: Collection[str] = (Stage.CORRECTNESS, Stage.THROUGHPUT),
) -> Judgement:
    """Return what `evidence` says of `cell` under `policy`.

    `checks` are the stages that the matrix asks for; one that is missing from `evidence` makes
    the cell UNVERIFIED at best, since a skipped check is never a pass.
    """
    correctness = _data(evidence, Stage.CORRECTNESS)
    throughput = _data(evidence, Stage.THROUGHPUT)
    speed = fastest(cell, throughput)
    claims = [
        *_exclusion(cell),
        *_ends(evidence),
        *_imports(cell, _data(evidence, Stage.INSPECT)),
        *_harness(correctness),
        *_numbers(correctness, _data(evidence, Stage.INSPECT), policy),
        *_timing(throughput, speed, policy),
        *_missing(evidence, policy, checks),
        *((Verdict.UNVERIFIED, gap) for gap in _gaps(cell, evidence, policy)),
        (Verdict.SAFE, _summary(correctness, policy)),
    ]
    verdict, reason = min(claims, key=lambda claim: PRECEDENCE.index(claim[0]))
    broken = verdict is Verdict.HARNESS_BROKEN
    return Judgement(
        verdict=verdict,
        reason=reason,
        limits=() if broken else tuple(limits(correctness, throughput, speed, policy)),
        worst_z=None if broken else _worst_z(correctness, policy),
        ratio=speed.ratio if speed else None,
        low=speed.low if speed else None,
        high=speed.high if speed else None,
        fastest=speed.candidate if speed else "",
        baseline=str(throughput.get("baseline", "triton")) if speed else "",
        seconds=sum(record.seconds for record in evidence.values()),
        ran=bool(correctness or throughput),
    )


def exit_code(judgements: Mapping[str, Judgement], required: Collection[str]) -> ExitCode:
    """Return what a run ends as, from the judgements of its cells by id.

    Of the `required` cells, the excluded ones aside: evidence against one is UNSAFE, whatever else
    is missing; else one that the machine or our harness kept from a verdict is INFRASTRUCTURE;
    else one that is UNVERIFIED is NOTHING_RAN where no cell of the run ran, and UNSAFE where
    others did, because a skipped check is never a pass. OK is left for: at least one required
    cell, and every one SAFE.
    """
    verdicts = {judgements[cell].verdict for cell in required if cell in judgements}
    verdicts.discard(Verdict.EXCLUDED)
    if any(verdict.is_bad for verdict in verdicts):
        return ExitCode.UNSAFE
    if any(verdict.is_infrastructure for verdict in verdicts):
        return ExitCode.INFRASTRUCTURE
    if not verdicts or not any(judgement.ran for judgement in judgements.values()):
        return ExitCode.NOTHING_RAN
    return ExitCode.OK if verdicts == {Verdict.SAFE} else ExitCode.UNSAFE


def _data(evidence: Mapping[Stage, Evidence], stage: Stage) -> Mapping[str, Any]:
    record = evidence.get(stage)
    return record.data if record is not None and record.outcome is Outcome.OK else {}


def _exclusion(cell: Cell) -> Iterator[Claim]:
    if cell.exclusion is not None:
        yield Verdict.EXCLUDED, f"{cell.exclusion.rule}: {cell.exclusion.reason}"


def _ends(evidence: Mapping[Stage, Evidence]) -> Iterator[Claim]:
    """Claim from stages that did not end OK; UNAVAILABLE is left to `_missing`."""
    for stage in Stage:
        record = evidence.get(stage)
        if record is None or record.outcome in (Outcome.OK, Outcome.UNAVAILABLE):
            continue
        verdict = _ENDS[stage].get(record.outcome, Verdict.INCONCLUSIVE)
        yield verdict, f"{stage}: {record.reason or record.outcome}"


def _missing(
    evidence: Mapping[Stage, Evidence], policy: Policy, checks: Collection[str]
) -> Iterator[Claim]:
    # Whatever a matrix asks for, nothing is SAFE whose numbers nobody compared.
    wanted = {Stage.INSPECT, Stage.CORRECTNESS, *map(Stage, checks)}
    if policy.min_throughput is not None:
        wanted.add(Stage.THROUGHPUT)
    # The first claim gives the reason: what cannot run here says more than what is missing.
    for stage, record in evidence.items():
        if record.outcome is Outcome.UNAVAILABLE:
            yield Verdict.UNVERIFIED, f"{stage}: {record.reason or 'cannot run here'}"
    for stage in Stage:
        if stage in wanted and stage not in evidence:
            yield Verdict.UNVERIFIED, f"{stage} did not run"


def _gaps(cell: Cell, evidence: Mapping[Stage, Evidence], policy: Policy) -> Iterator[str]:
    """Yield what the evidence would have had to cover."""
    stages = [stage for stage in evidence if stage.needs_target]
    yield from coverage.devices(cell, {str(stage): _data(evidence, stage) for stage in stages})
    found = _candidates(_data(evidence, Stage.CORRECTNESS))
    yield from coverage.features_passed(cell, found, policy)
    yield from coverage.uses(policy)


def _imports(cell: Cell, inspect: Mapping[str, Any]) -> Iterator[Claim]:
    """Claim from imports and candidates that the axes ask for and the environment lacks."""
    if not inspect:
        return
    device = inspect.get("device", {})
    on_target = cell.target == "cpu" or device.get("capability") == cell.target
    ended = [entry for entry in inspect.get("imports", ()) if not entry["ok"]]
    outside = [entry for entry in ended if entry.get("signal") in _FROM_OUTSIDE]
    for entry in outside:
        yield Verdict.INCONCLUSIVE, f"import {entry['module']}: {entry.get('error')}"
    failed = [
        f"import {entry['module']}: {entry.get('error')}" for entry in ended if entry not in outside
    ]
    driverless = [error for error in failed if _NO_DRIVER.search(error)]
    yield from ((Verdict.IMPORT_FAIL, error) for error in failed if error not in driverless)
    if not on_target:
        return  # without its GPU a candidate may hide; the later stages say UNVERIFIED
    if driverless:
        yield from ((Verdict.INCONCLUSIVE, error) for error in driverless)
        return
    for axis, prefix in (("flash-attn", "flash-attn"), ("vllm", "vllm-")):
        named = [item for item in inspect.get("candidates", ()) if item["name"].startswith(prefix)]
        if asks_for(cell, axis) and not any(item["available"] for item in named):
            why = next((item["reason"] for item in named if item.get("reason")), "it is not there")
            yield Verdict.IMPORT_FAIL, f"no attention of {axis} can be called: {why}"
        for item in named if asks_for(cell, axis) else ():
            if not item["available"] and _UNLOADABLE.search(str(item.get("reason"))):
                yield Verdict.IMPORT_FAIL, f"{item['name']}: {item['reason']}"


def _harness(correctness: Mapping[str, Any]) -> Iterator[Claim]:
    if not correctness:
        return
    harness = correctness.get("harness", {})
    if harness.get("status") != "PASS":
        shown = str(harness.get("status", "it was not compared"))
        for first in harness.get("failures", ())[:1]:
            shown = f"{first.get('case')}: {first.get('reason')}"
        yield Verdict.HARNESS_BROKEN, f"the reference disagrees with the oracle ({shown})"
    elif not harness.get("cases"):
        yield Verdict.HARNESS_BROKEN, "the reference was compared with the oracle in no case"


def _candidates(correctness: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the candidates that were called there, also one that could not be called later."""
    found = correctness.get("candidates", ())
    return [item for item in found if item.get("available", True) or item.get("cases")]


def _numbers(
    correctness: Mapping[str, Any], inspect: Mapping[str, Any], policy: Policy
) -> Iterator[Claim]:
    """Claim from the cases in the asked uses, candidate by candidate."""
    if not correctness:
        return
    seen = {candidate["name"]: candidate for candidate in correctness.get("candidates", ())}
    for item in inspect.get("candidates", ()):
        if item["available"] and not seen.get(item["name"], {}).get("cases"):
            why = seen.get(item["name"], {}).get("reason") or "no case ran"
            yield Verdict.UNVERIFIED, f"{item['name']} is there and was not checked: {why}"
    if not _candidates(correctness):
        yield Verdict.UNVERIFIED, "no attention was found to check"
    for candidate in _candidates(correctness):
        name, cases = candidate["name"], asked(candidate, policy)
        passing = ids(cases, "PASS")
        for status, group in grouped(cases):
            where = describe([case["id"] for case in group], passing)
            first = group[0]
            yield (
                _case_verdict(first),
                f"{name} {VERBS[status]} with {where}: {detail(first)} "
                f"({len(group)} of {len(cases)} cases, first {first['id']})",
            )
        if not passing:
            yield Verdict.UNVERIFIED, f"{name} passed none of {len(cases)} cases"
        odd = [c for c in cases if c["status"] not in {*_CASE_VERDICT, "PASS", "UNSUPPORTED"}]
        for case in odd[:1]:
            yield Verdict.UNVERIFIED, f"{name}: {case['id']} ended as {case['status']}"


def _case_verdict(case: Mapping[str, Any]) -> Verdict:
    if case["status"] == "CRASH" and case.get("signal") in _FROM_OUTSIDE:
        return Verdict.INCONCLUSIVE
    if _NO_ROOM.search(detail(case)):
        return Verdict.INCONCLUSIVE
    return _CASE_VERDICT[case["status"]]


def _timing(throughput: Mapping[str, Any], speed: Speed | None, policy: Policy) -> Iterator[Claim]:
    if not throughput:
        return
    for point in throughput.get("points", ()):
        if point["status"] == "WRONG":
            why = point.get("reason") or "its output is wrong"
            yield Verdict.UNSAFE, f"{point['candidate']} while timed at {point['point']}: {why}"
        elif point["status"] == "ERROR" and (signal := point.get("signal")):
            verdict = Verdict.INCONCLUSIVE if signal in _FROM_OUTSIDE else Verdict.CRASH
            yield verdict, f"{point['candidate']} while timed at {point['point']}: {signal}"
        elif point["status"] == "ERROR":
            why = str(point.get("reason") or "it gave no result")
            yield (
                _error_verdict(why),
                f"{point['candidate']} while timed at {point['point']}: {why}",
            )
    if speed is None:
        yield Verdict.UNVERIFIED, "throughput: no point could be measured"
    elif policy.min_throughput is not None and speed.high < policy.min_throughput:
        yield (
            Verdict.SLOW,
            f"{speed.candidate} runs at {speed} of the Triton baseline; "
            f"the policy asks for {policy.min_throughput:g}",
        )


def _error_verdict(reason: str) -> Verdict:
    """Say what an error while timing claims, from its words."""
    if _NO_ROOM.search(reason):
        return Verdict.INCONCLUSIVE
    if _OURS.search(reason):
        return Verdict.HARNESS_BROKEN
    return Verdict.CRASH if _HANG.search(reason) else Verdict.UNSAFE


def _worst_z(correctness: Mapping[str, Any], policy: Policy) -> float | None:
    found = [
        abs(value)
        for candidate in _candidates(correctness)
        for case in asked(candidate, policy)
        if isinstance(value := (case.get("stats") or {}).get("max_z"), int | float)
    ]
    # NaN compares with nothing; a z that is no number is as bad as any.
    return max((math.inf if math.isnan(value) else value for value in found), default=None)


def _summary(correctness: Mapping[str, Any], policy: Policy) -> str:
    """Say what a SAFE cell's verdict rests on."""
    cases = [case for item in _candidates(correctness) for case in asked(item, policy)]
    names = ", ".join(item["name"] for item in _candidates(correctness))
    refused = len(ids(cases, "UNSUPPORTED"))
    tail = f", {refused} refused" if refused else ""
    return f"{len(ids(cases, 'PASS'))} of {len(cases)} cases pass{tail} ({names})"
