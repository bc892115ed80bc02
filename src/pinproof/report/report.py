"""The table of a run: for a terminal, as Markdown, and in a README.

All of it is made from the results document alone, so that a report printed later from results.json
says what the run said.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tabulate import tabulate

from pinproof.errors import ConfigurationError
from pinproof.evidence import store
from pinproof.judge import triage
from pinproof.run.progress import duration

#: With more excluded cells than this a table names the rules instead of the cells.
_MANY = 12

#: No reason takes more lines of a terminal's table; `explain` has all of it.
_MOST_LINES = 7

_COLOURS = {"SAFE": "32", "SLOW": "33", "DEGRADED": "33", "EXCLUDED": "2"}
_BESIDE = {"UNVERIFIED": "36", "INCONCLUSIVE": "35", "HARNESS-BROKEN": "35"}


def write(document: Mapping[str, Any], directory: Path) -> tuple[Path, Path]:
    """Write results.json and results.md, each whole or not at all, and return their paths.

    Raises InfrastructureError where the disk refuses.
    """
    data, table = directory / "results.json", directory / "results.md"
    store.write_json(data, document)
    store.write_text(table, markdown(document))
    return data, table


def terminal(document: Mapping[str, Any], *, width: int, colour: bool) -> str:
    """Return the table and its footer for a terminal of `width` columns."""
    head, rows = _table(document)
    why = head.index("why")
    columns = zip(head, *rows, strict=True)
    # tabulate gives a heading two columns more than it has letters, and two between columns.
    taken = [max(len(name) + 2, *map(len, cells), 0) for name, *cells in columns]
    room = max(28, width - sum(taken) + taken[why] - 2 * (len(head) - 1))
    for row in rows:
        row[why] = "\n".join(_cut(textwrap.wrap(row[why], room))) or "-"
        if colour:
            row[why - 1] = _paint(row[why - 1])
    table = tabulate(rows, head, tablefmt="simple", disable_numparse=True)
    lines: list[str] = []
    for line in _footer(document, _paint if colour else str):
        lines += textwrap.wrap(line, max(width, 40), subsequent_indent="    ") or [""]
    return "\n".join([table, "", *lines]) + "\n"


def markdown(document: Mapping[str, Any]) -> str:
    """Return the table and its footer as Markdown; a list item for each line of the footer."""
    head, rows = _table(document)
    cells = [[_escape(text) for text in row] for row in rows]
    table = tabulate(cells, head, tablefmt="pipe", disable_numparse=True)
    notes = [f"- {_escape(line.strip())}" for line in _footer(document, str) if line.strip()]
    return "\n".join([table, "", *notes]) + "\n"


def update_readme(text: str, name: str, table: str) -> str:
    """Return `text` with `table` between the markers of `name`.

    The markers are the lines ``<!-- results:begin NAME -->`` and ``<!-- results:end -->``.
    Raises ConfigurationError where the pair is not there exactly once.
    """
    begin = f"<!-- results:begin {name} -->"
    pattern = re.compile(rf"({re.escape(begin)}\n).*?(<!-- results:end -->)", re.DOTALL)
    if text.count(begin) != 1 or not (match := pattern.search(text)):
        raise ConfigurationError(
            f"the text has no place for the results {name!r}",
            remedy=f"put the lines {begin} and <!-- results:end --> where the table belongs",
        )
    return f"{text[: match.end(1)]}\n{table.strip()}\n\n{text[match.start(2) :]}"


def width_of(stream: TextIO) -> int:
    """Return the columns of a terminal; 120 where `stream` is none."""
    return shutil.get_terminal_size((120, 24)).columns if stream.isatty() else 120


def wants_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Say if a person sees colours there: a terminal, and NO_COLOR unset or empty."""
    terminal = stream.isatty() and environment.get("TERM") != "dumb"
    return terminal and not environment.get("NO_COLOR")


def _table(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows. An axis that is "none" in every cell has no column."""
    cells = _shown(document)
    named = dict.fromkeys(axis for cell in cells for axis in cell["axes"])
    axes = [name for name in named if any(c["axes"].get(name, "none") != "none" for c in cells)]
    head = ["cell", *axes, "verdict", "why", "worst z", "vs Triton", "time"]
    rows = [
        [
            cell["id"],
            *(cell["axes"].get(axis, "-") for axis in axes),
            cell["verdict"],
            _why(cell),
            _z(cell["worst_z"]),
            _ratio(cell["throughput"]),
            duration(cell["seconds"]) if cell["seconds"] else "-",
        ]
        for cell in cells
    ]
    return head, rows


def _shown(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the cells that get a row: all, but the excluded only where they are few."""
    cells: list[Mapping[str, Any]] = document["cells"]
    if document["counts"].get("EXCLUDED", 0) <= _MANY:
        return cells
    return [cell for cell in cells if cell["verdict"] != "EXCLUDED"]


def _why(cell: Mapping[str, Any]) -> str:
    limits = len(cell["limits"])
    tail = f"; {limits} limit{'s' if limits > 1 else ''} below" if limits else ""
    return f"{cell['reason']}{tail}"


def _cut(lines: list[str]) -> list[str]:
    """Leave out the middle of many lines: the end of an error tells as much as its beginning."""
    half = _MOST_LINES // 2
    return lines if len(lines) <= _MOST_LINES else [*lines[:half], "...", *lines[-half:]]


def _z(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def _ratio(throughput: Mapping[str, Any] | None) -> str:
    if throughput is None:
        return "-"
    return "{ratio:.3g} [{low:.3g}, {high:.3g}]".format_map(throughput)


def _footer(document: Mapping[str, Any], paint: Callable[[str], str]) -> Iterator[str]:
    """Yield what a reader must know beside the table, a line each."""
    cells = document["cells"]
    yield from _excluded(document)
    for limit, ids in _by(cells, lambda cell: cell["limits"]).items():
        yield f"limit: {limit} ({_cells(ids, len(cells))})"
    for warning, ids in _by(cells, _warnings).items():
        yield f"compute-sanitizer warns: {warning} ({_cells(ids, len(cells))})"
    for gone, ids in _by(cells, _gone).items():
        yield f"{gone} ({_cells(ids, len(cells))})"
    known = _by(cells, lambda cell: re.findall(r"\[([A-Z]\d\d)\]", cell["reason"]))
    for failure in filter(None, map(triage.lookup, known)):
        yield f"[{failure.id}] {failure.cause}. Next step: {failure.remedy}"
    for baseline, ids in _by(cells, _baselines).items():
        if baseline == "triton-interpreter":
            yield (
                "The Triton baseline ran in Triton's interpreter on a processor: its ratio shows "
                f"that the probe works and says nothing of a GPU ({_cells(ids, len(cells))})"
            )
    yield "run on: " + ("; ".join(document["run_on"]) or "nothing")
    if document["not_run"]:
        yield "not run: " + ", ".join(document["not_run"])
    yield "verdicts: " + ", ".join(
        f"{count} {paint(verdict)}" for verdict, count in document["counts"].items()
    )
    yield f"policy: {_policy(document)}"
    yield f"logs: {document['logs']}"


def _gone(cell: Mapping[str, Any]) -> Iterator[str]:
    """Yield the known defects that checks met and did not see."""
    for known in cell.get("defects", ()):
        if not known["shown"]:
            version = f" {known['version']}" if known["version"] else ""
            yield (
                f"known defect {known['id']} did not show in {known['candidate']}{version}: "
                f"remove it, or that version from it ({known['upstream']})"
            )


def _warnings(cell: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a sanitizer found that may be intended."""
    for hazard in (cell.get("sanitizer") or {}).get("hazards", ()):
        if hazard["warning"]:
            yield f"{hazard['candidate']} under {hazard['tool']}: {hazard['text']}"


def _baselines(cell: Mapping[str, Any]) -> list[str]:
    return [cell["throughput"]["baseline"]] if cell["throughput"] else []


def _excluded(document: Mapping[str, Any]) -> Iterator[str]:
    if len(_shown(document)) == len(document["cells"]):
        return
    rules = Counter(
        (cell["exclusion"]["rule"], cell["exclusion"]["reason"])
        for cell in document["cells"]
        if cell["exclusion"]
    )
    for (rule, reason), count in rules.most_common():
        yield f"excluded: {count} cells by {rule}: {reason}"


def _by(
    cells: Iterable[Mapping[str, Any]], keys: Callable[[Mapping[str, Any]], Iterable[str]]
) -> dict[str, list[str]]:
    """Group cell ids by each of their keys, in order of first sight."""
    groups: dict[str, list[str]] = {}
    for cell in cells:
        for key in dict.fromkeys(keys(cell)):
            groups.setdefault(key, []).append(cell["id"])
    return groups


def _cells(ids: Sequence[str], total: int) -> str:
    if len(ids) == total:
        return "every cell"
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _policy(document: Mapping[str, Any]) -> str:
    policy = document["policy"]
    floor = policy.get("min_throughput")
    parts = [
        f"require {policy.get('require', 'all')}",
        f"safe for {', '.join(policy.get('uses') or ['everything'])}",
        f"checks {', '.join(document['checks']) or 'none'}",
    ]
    if floor is not None:
        parts.append(f"at least {floor:g} of the Triton baseline")
    return "; ".join(parts)


def _paint(verdict: str) -> str:
    code = _COLOURS.get(verdict) or _BESIDE.get(verdict) or "31"
    return f"\x1b[{code}m{verdict}\x1b[0m"


def _escape(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, in a table too."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text).replace("<", "&lt;")
