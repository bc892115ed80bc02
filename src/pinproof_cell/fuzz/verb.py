"""The verb `fuzz`: search a candidate or a provider for failures that no fixed case has."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pinproof_cell.document import check_writable
from pinproof_cell.fuzz.groups import Group
from pinproof_cell.fuzz.interview import UnavailableError
from pinproof_cell.fuzz.search import Found, Hunt, search
from pinproof_cell.judge import thresholds
from pinproof_cell.options import how_many, seconds
from pinproof_cell.request import SCHEMA, BadRequestError, check_candidate
from pinproof_cell.suite.cases import Case
from pinproof_cell.world import child

NOTHING, FINDINGS = 0, 1
#: How long a script may take, in seconds: its own patience with a hang, and the import of torch.
SCRIPT_LIMIT = 300.0
#: What the exit status of a script says; by any other it has failed itself.
SHOWS = {0: False, 1: True}
#: The line of a traceback that names the exception; advice of CUDA may follow it.
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)(?::|$)")

EXAMPLE = """\
Every case is judged as the suite judges its own. A failure is made as small as it gets, put beside
those of the same cause, and written as a script that needs torch and the kernel alone.

examples:
  python -m pinproof_cell fuzz --candidate torch-cpu-flash --seconds 60 --json fuzz.json
  python -m pinproof_cell fuzz --provider mykernel.py:attention --device cuda --json fuzz.json
  python -m pinproof_cell fuzz --candidate flash-attn-2 --device cuda --seed 7 --out found \\
      --json fuzz.json

exit status: 0 nothing found; 1 findings, or nothing could be judged; 2 wrong words, or a kernel
that cannot be had here
"""


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--provider", metavar="FILE.py:NAME", help="a callable, as `check` takes it")
    which.add_argument("--candidate", metavar="NAME", help="a kernel that Pinproof knows")
    sub.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    sub.add_argument("--seconds", type=seconds, default=60.0, help="how long (default 60)")
    sub.add_argument("--cases", type=how_many, metavar="N", help="the first N cases alone")
    sub.add_argument("--seed", type=int, default=0, help="of the cases and of their inputs")
    sub.add_argument(
        "--children", type=how_many, default=2, metavar="N", help="processes (default 2)"
    )
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="where scripts go (default: beside the JSON)"
    )


def main(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Run the verb; returns its document and the exit status. Raises BadRequestError."""
    hunt = Hunt(
        candidate=options.provider or options.candidate,
        device=options.device,
        seconds=options.seconds,
        seed=options.seed,
        children=options.children,
        most=options.cases,
        say=lambda line: print(line, flush=True),
    )
    check_candidate(hunt.candidate)
    with _scripts(options.out or options.json.with_name(f"{options.json.stem}-found")) as folder:
        try:
            found = search(hunt)
        except UnavailableError as error:
            raise BadRequestError(f"{hunt.candidate} cannot be asked here: {error}") from None
        reproduce(hunt, found, folder)
    told = document(hunt, found)
    print("\n".join(table(told)))
    clean = not found.groups.all and not found.lost and not found.unexplained and found.judged
    return told, NOTHING if clean else FINDINGS


@contextlib.contextmanager
def _scripts(folder: Path) -> Iterator[Path]:
    """Make the folder of the scripts; it goes again where it is new and got none.

    Raises BadRequestError where it cannot be written to: a search should not end with that.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    except OSError as error:
        raise BadRequestError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        yield folder
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def reproduce(hunt: Hunt, found: Found, folder: Path) -> None:
    """Write a script for every group into `folder`, and run it once."""
    if not found.groups.all:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with child.threads(hunt.children) as pool:
        list(pool.map(lambda group: _reproduced(hunt, found, folder, group), found.groups.all))


def _reproduced(hunt: Hunt, found: Found, folder: Path, group: Group) -> None:
    # It imports torch, which the rest of this process does without.
    from pinproof_cell.fuzz.reproduce.script import Failure, name_of, script

    failure = Failure(
        candidate=hunt.candidate,
        version=found.session["version"],
        device=hunt.device,
        seed=hunt.seed,
        lse_on_empty_rows=found.session["lse_on_empty_rows"],
        case=group.case,
        signature=group.signature,
        finding=group.answer.of(group.signature),
    )
    path = folder / name_of(hunt.candidate, group.signature, group.case)
    text = script(failure)
    path.write_text(text, encoding="utf-8")
    # Without our folder on its path, but for our own kernel; a provider may import what it likes.
    ours = ".py:" in hunt.candidate or "from pinproof_cell" in text
    extra = {} if ours else {"PYTHONPATH": child.callers_path()}
    ended = child.run([str(path)], target=hunt.device, timeout=SCRIPT_LIMIT, extra=extra)
    group.script, group.shows = str(path), SHOWS.get(ended.returncode)
    group.script_error = why_failed(ended) if group.shows is None else None


def why_failed(ended: child.Ended) -> str | None:
    """Return the last line that names an exception, else what `ended` says of itself."""
    if ended.timed_out or ended.signal is not None:
        return ended.reason
    raised = [line for line in ended.output.splitlines() if _RAISED.match(line)]
    return raised[-1].strip()[:500] if raised else ended.reason


def document(hunt: Hunt, found: Found) -> dict[str, Any]:
    """Return the document of the verb."""
    target = found.session["device"]["capability"]
    return {
        "schema": SCHEMA,
        "stage": "fuzz",
        "candidate": hunt.candidate,
        "version": found.session["version"],
        "device": found.session["device"],
        "thresholds": {"target": target, "source": thresholds.load(target).source},
        "seed": hunt.seed,
        "seconds": found.seconds,
        "judged": found.judged,
        "statuses": dict(found.statuses.most_common()),
        "pairs": {"met": found.met, "of": found.pairs},
        "features": dict(found.features.most_common()),
        "refusals": dict(found.refusals.most_common(20)),
        "deaths": found.deaths,
        "lost": found.lost,
        "groups": [_group(group) for group in found.groups.sorted()],
        "unexplained": dict(found.unexplained.most_common()),
        "declared": dict(found.declared.most_common()),
    }


def _group(group: Group) -> dict[str, Any]:
    finding = group.answer.of(group.signature)
    return {
        "status": group.signature.status,
        "check": group.signature.check,
        "statistic": group.signature.statistic,
        "value": finding.get("value"),
        "limit": finding.get("limit"),
        "text": finding["text"],
        "defect": group.defect,
        "features": sorted(group.features),
        "case": group.case.id,
        "fields": said(group.case),
        "count": group.count,
        "skipped": group.skipped,
        "first": {"number": group.first, "case": group.found.id},
        "script": group.script,
        "shows": group.shows,
        "script_error": group.script_error,
    }


def said(case: Case) -> dict[str, Any]:
    """Return the fields of a case that are not the default ones."""
    values = ((field.name, getattr(case, field.name), field.default) for field in fields(Case))
    return {name: value for name, value, default in values if value != default}


def table(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads: each cause, and what was searched."""
    for number, group in enumerate(told["groups"], 1):
        yield ""
        more = f" and {group['skipped']} not run" if group["skipped"] else ""
        yield f"{number}. {group['status']} {group['check']}, {group['text']}"
        yield f"   met {group['count']} times{more}; the smallest: {group['case']}"
        needs = ", ".join(group["features"]) or "no feature"
        yield f"   needs {needs}; " + (
            f"the known defect {group['defect']}" if group["defect"] else "not a known defect"
        )
        failed = f"itself FAILED: {group['script_error']}"
        shows = {True: "shows it", False: "does NOT show it alone", None: failed}[group["shows"]]
        yield f"   {group['script']} {shows}"
    for defect, count in told["declared"].items():
        yield f"the known defect {defect}, which the candidate declares: {count} cases"
    for signature, count in told["unexplained"].items():
        yield f"not looked at for want of time: {count} failures {signature}"
    if told["lost"]:
        yield f"ended early: {told['lost']}"
    rate = told["judged"] / max(told["seconds"], 1e-9)
    yield (
        f"{told['candidate']}: {told['judged']} cases judged in {told['seconds']:.0f} s "
        f"({rate:.0f}/s), {told['pairs']['met']} of {told['pairs']['of']} pairs of levels met, "
        f"{len(told['groups'])} causes of failure"
    )
    if not told["judged"]:
        yield "nothing was judged: that is no pass"
