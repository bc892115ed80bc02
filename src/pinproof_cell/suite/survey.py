"""Judge candidates that are known by name, several at once, a document for each.

Imports no torch: nothing that a candidate does can end this process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pinproof_cell.document import write
from pinproof_cell.request import BadRequestError
from pinproof_cell.suite import check
from pinproof_cell.suite.correctness import entry
from pinproof_cell.suite.harness import ballot, modes, summary
from pinproof_cell.suite.supervise import MOST_DEATHS, Run, Suite, lanes, supervise
from pinproof_cell.world import child


def at_once() -> int:
    """Return how many candidates run side by side: their lanes take the processors together."""
    return max(1, len(os.sched_getaffinity(0)) // lanes())


def files(names: Sequence[str], where: Path) -> dict[str, Path]:
    """Return the file of each candidate: `where`, or one in it. Raises BadRequestError."""
    if where.is_dir():
        return {name: where / f"{Path(name).name}.json" for name in names}
    if len(names) > 1:
        text = f"{len(names)} candidates need a folder for --json, and {where} is none"
        raise BadRequestError(f"{text}\n  next step: mkdir -p {where}")
    return {names[0]: where}


def run(
    names: Sequence[str],
    plan: Suite,
    where: Path,
    about: Mapping[str, Any],
    without: Sequence[str] = (),
) -> bool:
    """Judge `names` by the checks of `plan`; each document is written as soon as it is whole.

    Our own kernel votes beside them. `about` is what all documents say alike, `without` what the
    builds left out. Returns whether every verdict is PASS.
    """
    places = files(names, where)
    with child.threads(at_once()) as pool:
        # They are begun first, so that who waits for them does not wait for ever.
        votes = {mode: pool.submit(supervise, mode, ballot(plan)) for mode in modes(plan.device)}
        patient = replace(plan, most_deaths=MOST_DEATHS)

        def judge(name: str) -> bool:
            # On a GPU our own kernel is asked everything as it votes.
            own = votes.get(name) if plan.device == "cuda" else None
            judged = own.result() if own else supervise(name, patient)
            voted = summary({mode: vote.result() for mode, vote in votes.items()})
            told = document(name, judged, voted, plan.target, about, without)
            write(places[name], told)
            plan.say(check.table(told))
            return told["verdict"] == check.PASS

        return all(list(pool.map(judge, names)))


def document(
    name: str,
    judged: Run,
    voted: Mapping[str, Any],
    target: str,
    about: Mapping[str, Any],
    without: Sequence[str],
) -> dict[str, Any]:
    """Return the document of one candidate: as of a provider, and what is known of its defects."""
    known = entry(name, judged, target)
    told = check.told(judged, voted, without)
    for case, named in zip(told["cases"], known["cases"], strict=True):
        case["defect"] = named["defect"]
    return {
        **about,
        "candidate": name,
        "device": judged.session.get("device"),
        **{key: known[key] for key in ("supports", "worst", "defects")},
        **told,
        "seconds": round(sum(found["seconds"] for found in judged.checks), 1),
    }
