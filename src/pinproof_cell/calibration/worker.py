"""One process of a calibration: its share of the cases, put to every kernel that is right."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from pinproof_cell.calibration import kernels
from pinproof_cell.calibration.kernels import Calibrator
from pinproof_cell.calibration.summary import NO_RUNS
from pinproof_cell.fuzz.space import Sizes, Space
from pinproof_cell.judge import defects, thresholds
from pinproof_cell.judge.conditions import Outcome
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.suite.examine import examine
from pinproof_cell.suite.guard import Guarded
from pinproof_cell.suite.trial import Result
from pinproof_cell.world import child, device
from pinproof_cell.world.journal import Journal

#: Small cases: what is calibrated is arithmetic, and many small ones say more than a few large.
SIZES = {"cpu": Sizes(length=256, work=1 << 20), "cuda": Sizes(length=2048, work=1 << 26)}
#: Features that change no number of a right kernel, or of which hardly any call is left.
APART = frozenset({"far", "strided-head", "no-keys", "no-queries"})


def main(words: Sequence[str] | None = None) -> int:
    """Run until the share of runs or the time is done; the journal says where a dead one was."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--share", type=int, nargs=2, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--until", type=float, required=True, help="of the monotonic clock")
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args(words)
    child.end_with_parent()
    if options.device == "cpu":
        torch.set_num_threads(1)
    journal = Journal(options.journal)
    facts = device.facts(options.device)
    found, absent = kernels.of(options.device)
    journal.add("session", device=facts, absent=absent, kernels=_versions(found))
    if facts["kind"] != options.device:
        return 3
    run(options, journal, found, facts["capability"])
    return 0


def _versions(found: Sequence[Calibrator]) -> dict[str, str | None]:
    return {one.candidate.name: one.candidate.version for one in found}


def run(
    options: argparse.Namespace, journal: Journal, found: Sequence[Calibrator], target: str
) -> None:
    """Judge case after case; a line before and one after each run."""
    limits = thresholds.load(target)
    guarded = [(Guarded(one.candidate), one.every) for one in found]
    done = sum(line["status"] not in NO_RUNS for line in journal.lines("end"))
    begun = {line["number"] for line in journal.lines("begin")}
    for number, case in cases(options, begun):
        for kernel, every in guarded:
            if number // options.share[1] % every or case.features - kernel.supports:
                continue
            if done >= options.runs or time.monotonic() > options.until:
                return
            asked = {"kernel": kernel.name, "number": number, "case": case.id}
            asked["dtype"] = case.dtype
            journal.add("begin", **asked)
            result = examine(
                kernel, case, seed=options.seed, device=options.device, thresholds=limits
            )
            journal.add(
                "end",
                **asked,
                status=result.status,
                stats=result.stats,
                size=_size(case),
                reasons=list(result.reasons),
                defect=_defect(kernel, case, result, target),
            )
            done += result.status not in NO_RUNS


def _size(case: Case) -> tuple[int, int]:
    """Return how many rows the output has, and how many numbers each."""
    return sum(queries for queries, _ in case.sequences) * case.heads, case.dim_v


def _defect(kernel: Guarded, case: Case, result: Result, target: str) -> str | None:
    """Return the id of the known defect that a run shows, which is not the judge's error."""
    subject = defects.Subject(
        candidate=kernel.name,
        version=kernel.version,
        target=target,
        lse_on_empty_rows=kernel.lse_on_empty_rows,
    )
    if result.status == "PASS":
        return None
    findings = [finding.document() for finding in result.findings]
    outcome = Outcome(case=case, status=result.status, findings=findings)
    return defects.name_of(subject, outcome)


def cases(options: argparse.Namespace, begun: set[int]) -> Iterator[tuple[int, Case]]:
    """Yield this process's share of the cases, but for those that one before it has begun."""
    number, step = options.share
    space = Space(FEATURES - APART, SIZES[options.device], options.seed)
    while True:
        if number not in begun and (case := space.case(number)):
            yield number, case
        number += step


if __name__ == "__main__":
    sys.exit(main())
