"""The verb `mutants`: puts the suite to every mutant and says which it kills.

Imports no torch: two children share the checks, and a mutant that ends one is killed by that.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pinproof_cell.document import write
from pinproof_cell.judge.findings import Finding
from pinproof_cell.killmatrix.table import KILLED, check_page, document, documented, markdown, row
from pinproof_cell.request import BadRequestError
from pinproof_cell.suite import checks
from pinproof_cell.world import child
from pinproof_cell.world.journal import Journal

WORKERS = 2
#: After so many dead workers of one share something else than the mutants is wrong.
MOST_DEATHS = 30

EXAMPLE = """\
an extra file holds broken kernels of your own, with the signature that `check` asks for:
  MUTANTS = {"scaled": lambda q, k, v, **rest: ...}

What was asked is kept in a folder OUT.journal until all is: the same command goes on where one was
ended.

examples:
  python -m pinproof_cell mutants --json mutants.json
  python -m pinproof_cell mutants --extra mine.py --json mutants.json

exit status: 0 every active mutant is killed and no control; 1 otherwise; 2 wrong words
"""


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    sub.add_argument("--extra", type=Path, metavar="FILE.py", help="more mutants: its MUTANTS")
    sub.add_argument("--docs", type=Path, metavar="PAGE.md", help="write the table into this page")


def main(options: argparse.Namespace) -> tuple[None, int]:
    """Run the verb, which writes its document; returns the exit status. Raises BadRequestError."""
    if options.extra and not options.extra.is_file():
        raise BadRequestError(f"no file {options.extra}")
    if options.docs:
        # It takes minutes to have something to write: a page that cannot take it is told before.
        check_page(options.docs)
    folder = options.json.with_name(f"{options.json.name}.journal")
    found = run(folder, extra=options.extra)
    write(options.json, found)
    shutil.rmtree(folder)
    print(markdown(found))
    if options.docs:
        page = options.docs.read_text(encoding="utf-8")
        options.docs.write_text(documented(page, found), encoding="utf-8")
    return None, 1 if found["survivors"] or found["rejected"] else 0


def run(
    folder: Path,
    *,
    extra: Path | None = None,
    rounds: Sequence[Sequence[str]] | None = None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> dict[str, Any]:
    """Put the suite to every mutant, in rounds of checks, by default the quick ones and the rest.

    What is killed in one round is not asked the next; controls are asked everything. What `folder`
    keeps of a run that was ended is not asked again. Returns the document of the verb. Raises
    BadRequestError for an extra file that does not load, and for a folder of another run.
    """
    rounds = _rounds() if rounds is None else rounds
    results: dict[str, list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for number, wanted in enumerate(rounds):
        left = [row["id"] for row in rows if row["control"] or row["result"] != KILLED]
        place = folder / f"round-{number}"
        plan, ended, spent = _round(place, wanted, left if number else None, extra, say)
        for line in ended:
            results.setdefault(line["mutant"], []).append(line)
        rows = [row(facts, results.get(facts["id"], [])) for facts in plan]
        seconds += spent
    return document(rows, rounds, round(seconds, 1))


def _rounds() -> list[list[str]]:
    """Return the quick suite, and what the full one has beside it."""
    quick, full = ([check.id for check in checks.suite(level, "cpu")] for level in checks.LEVELS)
    return [quick, [name for name in full if name not in quick]]


def _round(
    folder: Path,
    wanted: Sequence[str],
    mutants: Sequence[str] | None,
    extra: Path | None,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """Put some checks to some mutants, or to all.

    Returns the mutants, the results in order, and the seconds that the longer share took, also
    where several calls of the verb did it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = folder / "task.json"
    chosen = {"checks": list(wanted), "mutants": mutants, "extra": extra and str(extra)}
    if task.exists() and json.loads(task.read_text(encoding="utf-8")) != chosen:
        text = f"{folder} holds a run of other mutants or checks"
        raise BadRequestError(f"{text}\n  next step: delete that folder")
    task.write_text(json.dumps(chosen), encoding="utf-8")
    with child.threads(WORKERS) as pool:
        shares = [pool.submit(_share, task, number, say) for number in range(WORKERS)]
        told = [share.result() for share in shares]
    lines = [line for share in told for line in share]
    order = {check: place for place, check in enumerate(wanted)}
    ended = [line for line in lines if line["kind"] == "end"]
    plan = next(line["mutants"] for line in lines if line["kind"] == "plan")
    ended = sorted(ended, key=lambda line: order[line["check"]])
    return plan, ended, max(map(_spent, told))


def _spent(lines: Sequence[dict[str, Any]]) -> float:
    """Return the seconds between the begin and the end of every question in a journal."""
    signs = {"begin": -1, "end": 1}
    return math.fsum(signs.get(line["kind"], 0) * line["at"] for line in lines)


def _share(task: Path, number: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run one share to its end, in as many processes as that takes; returns its journal."""
    journal = Journal(task.with_name(f"share-{number}.jsonl"))
    journal.take_back("mutant", "check")
    program = ["-m", "pinproof_cell.killmatrix.worker", "--journal", str(journal.path)]
    program += ["--share", str(number), str(WORKERS), "--task", str(task)]
    for _ in range(MOST_DEATHS):
        ended = child.run(program, target="cpu", timeout=None)
        if not ended.reason:
            return journal.lines()
        if not journal.lines("plan"):
            raise BadRequestError(f"the mutants do not load: {ended.reason}")
        blamed = journal.unfinished("mutant", "check")
        if blamed is None:
            break
        status = "HANG" if ended.signal == "SIGALRM" else "CRASH"
        say(f"mutants: {blamed['mutant']} on {blamed['check']}: {status}, {ended.reason}")
        found = Finding("process", status.lower(), str(ended.reason)).document()
        journal.add(
            "end",
            mutant=blamed["mutant"],
            check=blamed["check"],
            active=True,
            status=status,
            stats={},
            findings=[found],
        )
    raise BadRequestError(f"the mutant run did not end: {ended.reason}\n{ended.output[-2000:]}")
