"""Search the kernels of a cell for failures, inside its environment; what is found is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from pinproof import workflow
from pinproof.errors import (
    ConfigurationError,
    ExitCode,
    InfrastructureError,
    NothingRanError,
    did_you_mean,
)
from pinproof.evidence.evidence import Outcome
from pinproof.evidence.store import Store, read_json
from pinproof.options import Options
from pinproof.plan.recipe import CellWork
from pinproof.plan.stage import Stage
from pinproof.report.results import Row
from pinproof.run import process, runner
from pinproof.run.environment import isolated_env, shielded
from pinproof.run.machine import this_machine

SCHEMA = 1

#: Beside the search itself: imports, making failures small, and running their scripts, in seconds.
MARGIN = 1800.0


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """How a search is made: which candidates (none: all that the cell holds), how long for each."""

    candidates: tuple[str, ...] = ()
    seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise ConfigurationError("--seconds must be more than 0")
        if self.seed < 0:
            raise ConfigurationError("--seed must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in one candidate: the cell's own document, and where it lies."""

    candidate: str
    folder: Path
    document: Mapping[str, Any]

    @property
    def news(self) -> int:
        """How many causes of failure are no known defect, and failures that nobody looked at."""
        groups = [group for group in self.document["groups"] if group["defect"] is None]
        return len(groups) + sum(map(int, self.document["unexplained"].values()))


def fuzz(options: Options, hunt: Hunt, out: TextIO) -> tuple[Found, ...]:
    """Search the kernels of the one cell that `options` name; tell `out` about it meanwhile.

    Raises NothingRanError where the cell is not for this machine, cannot be installed, or holds no
    kernel that can be called; ConfigurationError for a candidate that it does not hold;
    InfrastructureError where the search itself fails.
    """
    row, work = _installed(options, out)
    names = _candidates(row, hunt)
    store = Store(options.store)
    with store.exclusive():
        return tuple(_search(options, work, name, hunt, store, out) for name in names)


def document(cell: str, found: Sequence[Found]) -> dict[str, Any]:
    """Return all that was found, JSON values, schema 1."""
    return {
        "schema": SCHEMA,
        "cell": cell,
        "exit_code": int(exit_code(found)),
        "candidates": [{**each.document, "folder": str(each.folder)} for each in found],
    }


def exit_code(found: Sequence[Found]) -> ExitCode:
    """Return UNSAFE where something is found that is no known defect, OK where nothing is.

    NOTHING_RAN where no case of any candidate was judged, INFRASTRUCTURE where a search was lost.
    """
    if any(each.news for each in found):
        return ExitCode.UNSAFE
    if any(each.document["lost"] for each in found):
        return ExitCode.INFRASTRUCTURE
    judged = any(each.document["judged"] for each in found)
    return ExitCode.OK if judged else ExitCode.NOTHING_RAN


def summary(found: Sequence[Found]) -> Iterator[str]:
    """Yield what was found, a line for each candidate."""
    for each in found:
        told = each.document
        known = sorted({group["defect"] for group in told["groups"] if group["defect"]})
        named = f"; known defects: {', '.join(known)}" if known else ""
        yield (
            f"{each.candidate}: {told['judged']} cases judged, "
            f"{each.news or 'no'} new {'failure' if each.news == 1 else 'failures'}{named}"
        )
        yield f"  written to {each.folder}"


def _installed(options: Options, out: TextIO) -> tuple[Row, CellWork]:
    """Bring the cell as far as inspect, with its environment on disk."""
    asked = replace(options, until=Stage.INSPECT)
    for again in (asked, replace(asked, fresh=True)):
        proof = workflow.run(again, out)
        (row,) = proof.rows
        target, machine = row.cell.target, this_machine()
        if target not in ("cpu", machine.target):
            raise NothingRanError(
                f"{row.cell.id} is for {target}; this machine is {machine.target}",
                remedy="name a cell of this machine: `nox -s expand` lists them",
            )
        bad = [record for record in row.evidence.values() if record.outcome is not Outcome.OK]
        if bad or Stage.INSPECT not in row.evidence:
            raise NothingRanError(
                f"{row.cell.id} cannot be searched: {row.judgement.reason}",
                remedy="`pinproof explain` says what is known of it, and where the logs lie",
            )
        home = options.envdir / row.cell.id
        # An environment that was removed is not missed by a plan whose later stages are known.
        if runner.filled_by(home) == row.evidence[Stage.INSTALL].digest:
            return row, proof.works[row.cell.id]
    raise InfrastructureError(
        f"the environment of {row.cell.id} is not there after its install",
        cause="something removes it meanwhile",
        remedy=f"look into {home}",
    )


def _candidates(row: Row, hunt: Hunt) -> tuple[str, ...]:
    """Return the kernels to search: those asked for, or all that can be called."""
    seen = row.evidence[Stage.INSPECT].data.get("candidates", ())
    known = {item["name"]: item for item in seen}
    for name in hunt.candidates:
        if name not in known:
            raise ConfigurationError(
                f"{row.cell.id} holds no kernel {name[:60]!r}.{did_you_mean(name[:60], known)}",
                remedy=f"use one of: {', '.join(known) or 'none'}",
            )
    names = hunt.candidates or tuple(name for name, item in known.items() if item["available"])
    if not names:
        why = next((item["reason"] for item in seen if item.get("reason")), "it holds none")
        raise NothingRanError(f"no kernel of {row.cell.id} can be called: {why}")
    return names


def _search(
    options: Options, work: CellWork, name: str, hunt: Hunt, store: Store, out: TextIO
) -> Found:
    """Run the cell's own verb for one candidate. Raises InfrastructureError where it fails."""
    folder = store.fuzz_dir(work.cell.id, f"{name}-seed{hunt.seed}")
    result = folder / "fuzz.json"
    result.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    device = "cpu" if work.cell.target == "cpu" else "cuda"
    home = options.envdir / work.cell.id
    words = [
        str(home / "bin" / "python"),
        "-m",
        "pinproof_cell",
        "fuzz",
        "--candidate",
        name,
        "--device",
        device,
    ]
    words += ["--seconds", f"{hunt.seconds:g}", "--seed", str(hunt.seed)]
    words += ["--out", str(folder), "--json", str(result)]
    ended = process.run(
        shielded(words, home, runner.shared(store, work)),
        env=isolated_env(os.environ, runner.cell_env(work, home)),
        timeout=hunt.seconds + MARGIN,
        on_line=lambda line: print(line.rstrip("\n"), file=out, flush=True),
    )
    found = read_json(result)
    if not isinstance(found, dict) or found.get("stage") != "fuzz":
        last = (ended.output.strip().splitlines() or ["it said nothing"])[-1]
        why = f"no end after {ended.seconds:.0f} s" if ended.timed_out else last
        raise InfrastructureError(
            f"the search of {name} left no result: {why}",
            cause=f"it ended as {ended.signal_name or ended.returncode}",
            remedy=f"run it by hand: {' '.join(words)}",
        )
    return Found(candidate=name, folder=folder, document=found)
