"""The kill matrix: every mutant against every case, and whether the suite sees it.

Imports no torch: two children share the cases, and a mutant that ends one is killed by that.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pinproof_cell.judge.findings import Finding
from pinproof_cell.request import SCHEMA, BadRequestError
from pinproof_cell.suite.grid import PLAIN
from pinproof_cell.throughput.journal import read
from pinproof_cell.world import child, device

WORKERS = 2
#: So many calls on the same inputs see an error of 1.2% with a chance of 95%.
REPEATS = 250
#: After so many dead workers of one share something else than the mutants is wrong.
MOST_DEATHS = 30
#: How long a worker may take in all, in seconds.
LIMIT = 1200.0

KILLED, SURVIVED, INACTIVE = "killed", "SURVIVED", "inactive"
PASSED, REJECTED = "passed", "REJECTED"

EXAMPLE = """\
an extra file holds broken kernels of your own, with the signature that `check` asks for:
  MUTANTS = {"scaled": lambda q, k, v, **rest: ...}

examples:
  python -m pinproof_cell mutants --json mutants.json
  python -m pinproof_cell mutants --extra mine.py --json mutants.json

exit status: 0 every active mutant is killed and no control; 1 otherwise; 2 wrong words
"""

_BLOCK = re.compile(r"(<!-- kill-matrix:begin -->\n).*?(<!-- kill-matrix:end -->)", re.DOTALL)


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    sub.add_argument("--extra", type=Path, metavar="FILE.py", help="more mutants: its MUTANTS")
    sub.add_argument("--docs", type=Path, metavar="PAGE.md", help="write the table into this page")


def main(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Run the verb; returns its document and the exit status. Raises BadRequestError."""
    if options.extra and not options.extra.is_file():
        raise BadRequestError(f"no file {options.extra}")
    document = run(extra=options.extra)
    print(markdown(document))
    if options.docs:
        page = options.docs.read_text(encoding="utf-8")
        options.docs.write_text(documented(page, document), encoding="utf-8")
    return document, 1 if document["survivors"] or document["rejected"] else 0


def run(
    *,
    extra: Path | None = None,
    cases: Sequence[str] | None = None,
    repeats: int = REPEATS,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> dict[str, Any]:
    """Run every mutant on `cases`, or on all, and `repeats` times on the same inputs.

    Returns the document of the verb. Raises BadRequestError for an extra file that does not load.
    """
    started = time.monotonic()
    wanted = [case.id for case in PLAIN] if cases is None else list(cases)
    with tempfile.TemporaryDirectory(prefix="pinproof-") as scratch:
        folder = Path(scratch)
        (folder / "cases.json").write_text(json.dumps(wanted), encoding="utf-8")
        words = ["--cases", str(folder / "cases.json"), "--repeats", str(repeats)]
        words += ["--extra", str(extra)] if extra else []
        with ThreadPoolExecutor(WORKERS) as pool:
            shares = [pool.submit(_share, folder, n, words, say) for n in range(WORKERS)]
            lines = [line for share in shares for line in share.result()]
    plan = next(line["mutants"] for line in lines if line["kind"] == "plan")
    ended = [line for line in lines if line["kind"] == "end"]
    order = {case: place for place, case in enumerate(wanted)}
    rows = [row(facts, _of(facts["id"], ended, order)) for facts in plan]
    return document(rows, wanted, round(time.monotonic() - started, 1))


def _of(
    mutant: str, ended: Iterable[dict[str, Any]], order: Mapping[str, int]
) -> list[dict[str, Any]]:
    mine = [line for line in ended if line["mutant"] == mutant]
    return sorted(mine, key=lambda line: order.get(line["case"], len(order)))


def _share(
    folder: Path, number: int, words: Sequence[str], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run one share to its end, in as many processes as that takes; returns its journal."""
    journal = folder / f"share-{number}.jsonl"
    program = ["-m", "pinproof_cell.suite.killworker", "--journal", str(journal)]
    program += ["--share", str(number), str(WORKERS), *words]
    dead: list[dict[str, Any]] = []
    for _ in range(MOST_DEATHS):
        ended = child.run(program, target="cpu", timeout=LIMIT)
        lines = list(read(journal))
        if not ended.reason:
            return lines + dead
        if not any(line["kind"] == "plan" for line in lines):
            raise BadRequestError(f"the mutants do not load: {ended.reason}")
        blamed = _open(lines, dead)
        if blamed is None:
            break
        status = "HANG" if ended.signal == "SIGALRM" else "CRASH"
        say(f"mutants: {blamed[0]} on {blamed[1]}: {status}, {ended.reason}")
        dead.append(
            {
                "kind": "end",
                "mutant": blamed[0],
                "case": blamed[1],
                "active": True,
                "status": status,
                "stats": {},
                "findings": [Finding("process", status.lower(), str(ended.reason)).document()],
            }
        )
    raise BadRequestError(f"the mutant run did not end: {ended.reason}\n{ended.output[-2000:]}")


def _open(
    lines: Sequence[dict[str, Any]], dead: Sequence[dict[str, Any]]
) -> tuple[str, str] | None:
    """Return mutant and case that were begun and have no result, or None."""
    done = {(line["mutant"], line["case"]) for line in (*lines, *dead) if line["kind"] == "end"}
    begun = [(line["mutant"], line["case"]) for line in lines if line["kind"] == "begin"]
    return next((pair for pair in begun if pair not in done), None)


def row(facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a mutant's row of the matrix from its results in the order of the cases."""
    active = [result for result in results if result["active"]]
    # What the suite says of an active case; a control counts where it answers as the honest one.
    killing = [result for result in results if result["status"] != "PASS"]
    by = Counter(_by(result) for result in killing)
    statuses = Counter(result["status"] for result in killing)
    peaks = [result["stats"]["max_z"] for result in results if "max_z" in result["stats"]]
    if facts["control"]:
        word = REJECTED if killing else PASSED
    elif not active:
        word = INACTIVE
    else:
        word = KILLED if killing else SURVIVED
    return {
        **facts,
        "result": word,
        "asked": len(results),
        "active": len(active),
        "killed": len(killing),
        "by": dict(sorted(by.items(), key=lambda item: (-item[1], item[0]))),
        "statuses": dict(sorted(statuses.items())),
        "max_z": float(f"{max(peaks):.4g}") if peaks else None,
        "first": killing[0]["case"] if killing else None,
    }


def _by(result: Mapping[str, Any]) -> str:
    check, statistic = (result["findings"][0][key] for key in ("check", "statistic"))
    return statistic if check in ("output", "contract", "process") else f"{check} {statistic}"


def document(
    rows: Sequence[Mapping[str, Any]], cases: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Return the document of the verb: the rows, and what they come to."""
    broken = [row for row in rows if not row["control"]]
    families = {}
    for family in dict.fromkeys(row["family"] for row in broken):
        mine = [row for row in broken if row["family"] == family]
        families[family] = {
            "mutants": len(mine),
            "active": sum(row["active"] > 0 for row in mine),
            "killed": sum(row["result"] == KILLED for row in mine),
        }
    machine = device.facts("cpu")
    return {
        "schema": SCHEMA,
        "stage": "mutants",
        "machine": {name: machine[name] for name in ("name", "threads", "memory_gib")},
        "seconds": seconds,
        "cases": list(cases),
        "families": families,
        "survivors": [row["id"] for row in broken if row["result"] == SURVIVED],
        "inactive": [row["id"] for row in broken if row["result"] == INACTIVE],
        "rejected": [row["id"] for row in rows if row["result"] == REJECTED],
        "mutants": list(rows),
    }


def markdown(document: Mapping[str, Any]) -> str:
    """Return the kill matrix as tables of Markdown, and one line that sums it up."""
    parts = []
    families = dict.fromkeys(row["family"] for row in document["mutants"])
    for family in families:
        rows = [row for row in document["mutants"] if row["family"] == family]
        parts += [f"### {family[0].upper()}{family[1:]}\n", *map(_line, [_HEAD, _RULE])]
        parts += [_line(_cells(row)) for row in rows]
        parts.append("")
    return "\n".join([*parts, summary(document)])


def summary(document: Mapping[str, Any]) -> str:
    """Return one paragraph: how many are killed, and every hole by name."""
    counts = document["families"].values()
    active, killed = (sum(count[key] for count in counts) for key in ("active", "killed"))
    controls = [row for row in document["mutants"] if row["control"]]
    lines = [
        f"{killed} of {active} active mutants killed, "
        f"{len(document['rejected'])} of {len(controls)} controls rejected, "
        f"{len(document['cases'])} cases, {document['seconds']:.0f} s."
    ]
    for key, told in (
        ("survivors", "Survived"),
        ("inactive", "Inactive, no case wakes them"),
        ("rejected", "Controls rejected"),
    ):
        if document[key]:
            lines.append(f"{told}: {', '.join(f'`{name}`' for name in document[key])}.")
    return "\n".join(lines)


_HEAD = ("mutant", "bug", "stands for", "active", "killed", "by", "max z", "first killing case")
_RULE = ("---", "---", "---", "---:", "---:", "---", "---:", "---")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    by = next(iter(row["by"]), "")
    killed = f"{row['killed']}" if row["result"] in (KILLED, PASSED) else row["result"]
    peak = "" if row["max_z"] is None else f"{row['max_z']:.3g}"
    return (
        f"`{row['id']}`",
        row["bug"],
        row["stands_for"],
        f"{row['active']} of {row['asked']}",
        killed,
        by,
        peak,
        row["first"] or "",
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def documented(page: str, document: Mapping[str, Any]) -> str:
    """Return `page` with the matrix between its marks. Raises BadRequestError without any."""
    if not _BLOCK.search(page):
        raise BadRequestError("the page has no marks <!-- kill-matrix:begin --> and :end")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{markdown(document)}\n\n{match[2]}", page)
