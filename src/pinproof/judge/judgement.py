"""What the evidence and the policy together say of a cell, and of a run. Pure.

Each module beside this one raises claims from a part of the evidence; `verdict` says which of them
is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinproof.errors import ExitCode
from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.judge import audited, combination, coverage, imports, numbers, sanitized, timing
from pinproof.judge.checks import Correctness, Known
from pinproof.judge.limits import limits
from pinproof.judge.sanitized import Sanitized
from pinproof.judge.speed import fastest
from pinproof.judge.verdict import PRECEDENCE, Claim, Verdict
from pinproof.plan.stage import Stage

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell
    from pinproof.matrix.matrixfile import Policy

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
    Stage.SANITIZE: {Outcome.FAILED: Verdict.HARNESS_BROKEN},
}


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A known defect that a candidate of the cell is said to have, and what was seen of it."""

    candidate: str
    version: str | None
    known: Known


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A cell's verdict, its first reason, and the numbers that the table shows.

    ``limits`` are calls outside the asked uses that fail, and what could not be measured;
    ``defects`` the known ones that a check spoke of; ``sanitizer`` is what compute-sanitizer saw,
    None where it did not run. ``worst_z`` is the largest max|z| in the asked
    uses (may be infinite). ``ratio`` is the time of the Triton baseline over that of ``fastest``,
    the geometric mean over its points, with its interval ``low`` to ``high``; ``baseline`` says how
    Triton ran. ``ran`` is True where a candidate was really called.
    """

    verdict: Verdict
    reason: str
    limits: tuple[str, ...] = ()
    defects: tuple[Carried, ...] = ()
    sanitizer: Sanitized | None = None
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
    inspect = _data(evidence, Stage.INSPECT)
    correctness = Correctness.parse(_data(evidence, Stage.CORRECTNESS))
    throughput = _data(evidence, Stage.THROUGHPUT)
    speed = fastest(cell, throughput)
    sanitizer = sanitized.read(_data(evidence, Stage.SANITIZE))
    claims = [
        *_exclusion(cell),
        *_ends(evidence),
        *imports.claims(cell, inspect),
        *combination.claims(cell, inspect),
        *audited.claims(
            cell, inspect, {str(each): _data(evidence, each) for each in Stage if each.measures}
        ),
        *numbers.harness(correctness),
        *numbers.claims(correctness, inspect, policy),
        *timing.claims(throughput, speed, policy),
        *sanitized.claims(sanitizer),
        *_missing(evidence, policy, checks),
        *((Verdict.UNVERIFIED, gap) for gap in _gaps(cell, evidence, correctness, policy)),
        numbers.proof(correctness, policy),
    ]
    verdict, reason = min(claims, key=lambda claim: PRECEDENCE.index(claim[0]))
    if verdict is Verdict.SAFE:
        reason += sanitized.summary(sanitizer)
    broken = verdict is Verdict.HARNESS_BROKEN
    return Judgement(
        verdict=verdict,
        reason=reason,
        limits=()
        if broken
        else (*audited.limits(cell, inspect), *limits(correctness, speed, policy)),
        defects=() if broken else tuple(_carried(correctness)),
        sanitizer=sanitizer,
        worst_z=None if broken else numbers.worst_z(correctness, policy),
        ratio=speed.ratio if speed else None,
        low=speed.low if speed else None,
        high=speed.high if speed else None,
        fastest=speed.candidate if speed else "",
        baseline=str(throughput.get("baseline", "triton")) if speed else "",
        seconds=sum(record.seconds for record in evidence.values()),
        ran=bool(correctness.harness or throughput),
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
        elif stage.measures and record.outcome is Outcome.OK and not record.data:
            yield Verdict.UNVERIFIED, f"{stage} left nothing that it measured"
    for stage in Stage:
        if stage in wanted and stage not in evidence:
            yield Verdict.UNVERIFIED, f"{stage} did not run"


def _gaps(
    cell: Cell, evidence: Mapping[Stage, Evidence], correctness: Correctness, policy: Policy
) -> Iterator[str]:
    """Yield what the evidence would have had to cover."""
    stages = [stage for stage in evidence if stage.needs_target]
    yield from coverage.devices(cell, {str(stage): _data(evidence, stage) for stage in stages})
    yield from coverage.uses(cell, correctness, policy)


def _carried(correctness: Correctness) -> Iterator[Carried]:
    for candidate in correctness.candidates:
        for known in candidate.known:
            yield Carried(candidate=candidate.name, version=candidate.version, known=known)
