"""The files that a production user takes away: constraints.txt, and PINS.md with the proof."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from pinproof.errors import UnsafePinError
from pinproof.evidence.store import write_text
from pinproof.judge.verdict import Verdict
from pinproof.matrix import axis as axes
from pinproof.plan.stage import Stage

if TYPE_CHECKING:
    from pinproof.evidence.evidence import Evidence
    from pinproof.judge.judgement import Judgement
    from pinproof.locks.lock import Lock
    from pinproof.matrix.cell import Cell

INSTALL = "pip install --require-hashes -r constraints.txt"


def best(judged: Iterable[tuple[Cell, Judgement]]) -> Cell:
    """Return the SAFE cell with the fewest limits, then the highest ratio, then the newest axes.

    Raises UnsafePinError where no cell is SAFE.
    """
    known = list(judged)
    safe = [(cell, judgement) for cell, judgement in known if judgement.verdict is Verdict.SAFE]
    if not safe:
        count = f"none of {len(known)} cells is SAFE" if known else "no cell was judged"
        which = f" -- --matrix {known[0][0].matrix}" if known else ""
        silent = (Verdict.UNVERIFIED, Verdict.EXCLUDED)
        ran = any(judgement.verdict not in silent for _, judgement in known)
        raise UnsafePinError(
            f"there is nothing to pin: {count}",
            remedy=f"nox -s report{which} shows every cell's reason"
            if ran
            else f"prove them first: nox -s matrix{which}",
        )
    return max(safe, key=lambda pair: _merit(*pair))[0]


def _merit(cell: Cell, judgement: Judgement) -> tuple[object, ...]:
    newest = [axes.parse(name, text).version or Version("0") for name, text in cell.axes]
    # The time of Triton's interpreter says nothing of how fast a cell is.
    measured = judgement.baseline != "triton-interpreter"
    ratio = judgement.ratio or 0.0 if measured else 0.0
    return -len(judgement.limits), ratio, newest, cell.id


def write(
    cell: Cell,
    judgement: Judgement,
    evidence: Mapping[Stage, Evidence],
    lock: Lock,
    out_dir: Path,
    *,
    system: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    without: Iterable[str] = (),
    sources: Iterable[str] = (),
    conda: Path | None = None,
) -> tuple[Path, ...]:
    """Write the pins of `cell` into `out_dir` and return the paths of constraints.txt and PINS.md.

    `system` holds what the interpreter of the system back end brought (name to version), and
    `sources` the kinds of index that the lock came from. Each file is written whole or not at
    all, PINS.md last. `env` are the variables that the cell was proven with, `without` the
    packages that were left out though others ask for them. Neither file holds a path of this
    machine or the address of an index. `conda` is the lock of the conda packages that the cell
    stands on: it is put beside them as it is, and its path returned too.

    Raises UnsafePinError where the cell is not SAFE, InfrastructureError where the disk refuses.
    """
    require_safe(cell, judgement)
    constraints, why = out_dir / "constraints.txt", out_dir / "PINS.md"
    brought, left_out = system or {}, tuple(without)
    command = f"{INSTALL} --no-deps" if brought or left_out else INSTALL
    write_text(constraints, constraints_text(cell, lock, brought, command))
    conditions = [*_below(conda), *_conditions(env or {}, left_out)]
    text = why_text(cell, judgement, evidence, lock, brought, tuple(sources), command, conditions)
    if conda is not None:
        write_text(out_dir / conda.name, conda.read_text(encoding="utf-8"))
    write_text(why, text)
    return constraints, why, *([out_dir / conda.name] if conda else [])


def require_safe(cell: Cell, judgement: Judgement, what: str = "pinned") -> None:
    """Raise UnsafePinError where `cell` is not SAFE: only such a cell is pinned, or archived."""
    if judgement.verdict is not Verdict.SAFE:
        raise UnsafePinError(
            f"{cell.id} is {judgement.verdict}, so it is not {what}",
            cause=judgement.reason,
            remedy=f"only SAFE cells are {what}: name `best` to take the best one",
        )


def constraints_text(
    cell: Cell, lock: Lock, system: Mapping[str, str], command: str = INSTALL
) -> str:
    """Return the product of `lock` for pip and uv; what the machine brought stands as a comment."""
    head = [
        f"# {cell.label}",
        f"# proven as {cell.id} on {cell.target}, Python {lock.python}; PINS.md says how",
        f"# {command}",
    ]
    if system:
        head += ["#", "# The machine brought these; they are not installed from here:"]
        head += [f"#   {name}=={system[name]}" for name in sorted(system, key=str.lower)]
    return "\n".join([*head, *map(str, lock.product)]) + "\n"


def why_text(
    cell: Cell,
    judgement: Judgement,
    evidence: Mapping[Stage, Evidence],
    lock: Lock,
    system: Mapping[str, str],
    sources: tuple[str, ...],
    command: str = INSTALL,
    conditions: Sequence[str] = (),
) -> str:
    """Return PINS.md: what is pinned, why it is SAFE, where that was seen, how to install it."""
    return "\n".join(
        [
            f"# {cell.label}",
            "",
            f"`{cell.id}` is **{judgement.verdict}** on {cell.target}.",
            "",
            *_numbers(judgement),
            *_limits(judgement),
            *_install(lock, system, sources, command),
            *conditions,
            *_where(evidence),
            *_proof(evidence),
        ]
    )


def _numbers(judgement: Judgement) -> list[str]:
    rows: list[str] = []
    if judgement.worst_z is not None and math.isfinite(judgement.worst_z):
        rows.append(f"- worst deviation from fp64: max\\|z\\| = {judgement.worst_z:.3g}")
    if judgement.ratio is not None:
        who = f" of {judgement.fastest}" if judgement.fastest else ""
        baseline = judgement.baseline or "triton"
        span = ""
        if judgement.low is not None and judgement.high is not None:
            span = f", interval {judgement.low:.3f} to {judgement.high:.3f}"
        rows.append(f"- speed{who}: {judgement.ratio:.3f} times the {baseline} baseline{span}")
    return [*rows, ""] if rows else []


def _limits(judgement: Judgement) -> list[str]:
    if not judgement.limits:
        return ["No limit was found.", ""]
    return ["## Limits", "", *(f"- {limit}" for limit in judgement.limits), ""]


def _below(conda: Path | None) -> list[str]:
    """Say which conda packages the wheels were installed on."""
    if conda is None:
        return []
    return [
        "## The conda packages below",
        "",
        f"The wheels were proven on the packages of `{conda.name}`, each by its sha256. Make that"
        f" environment first (`conda-lock install --prefix DIR {conda.name}`, or what reads such"
        " a lock), then install the wheels with its Python.",
        "",
    ]


def _conditions(env: Mapping[str, str], without: Sequence[str]) -> list[str]:
    """Say under what conditions the cell was proven, beside its versions."""
    if not env and not without:
        return []
    lines = [f"- `{name}={value}` was set" for name, value in env.items()]
    lines += [f"- {name} was left out, and must stay out" for name in without]
    return ["## Proven with", "", *lines, ""]


def _install(
    lock: Lock, system: Mapping[str, str], sources: tuple[str, ...], command: str
) -> list[str]:
    lines = ["## Install", "", f"    {command}", ""]
    lines.append(
        f"Python {lock.python}{f' on {lock.platform}' if lock.platform else ''};"
        f" {len(lock.product)} files, each by its sha256."
    )
    if sources:
        lines.append(f"They were found through: {', '.join(sources)}.")
    if lock.torch_backend:
        lines.append(f"torch comes from PyTorch's own index of {lock.torch_backend} builds.")
    if lock.indexes:
        lines.append(
            f"What no release index has comes from the index {' and '.join(lock.indexes)}."
            " Nightlies leave theirs after about 60 days: archive the cell."
        )
    local = [f"{pin.name} {pin.version}" for pin in lock.product if "+" in pin.version]
    if local:
        lines.append(
            f"A default index does not have {', '.join(local)}: pip needs the same extra index,"
            " or a `--find-links` directory with the wheel."
        )
    if system:
        lines.append(
            f"{len(system)} packages came with the machine and have no hash here;"
            " constraints.txt names them. The pins hold beside exactly those."
        )
    return [*lines, ""]


def _where(evidence: Mapping[Stage, Evidence]) -> list[str]:
    """Name each machine that measured, once."""
    seen: dict[str, None] = {}
    for stage in Stage:
        if stage.measures and stage in evidence:
            facts = evidence[stage].machine
            gpu, driver = facts.get("gpu"), facts.get("driver")
            what = f"{gpu}, driver {driver}" if gpu else "no GPU"
            seen[f"- {what}; {facts.get('cpu', '')}; {facts.get('platform', '')}"] = None
    return ["## Seen on", "", *(seen or ["- no machine"]), ""]


def _proof(evidence: Mapping[Stage, Evidence]) -> list[str]:
    rows = [
        f"| {stage} | {known.outcome} | {known.started[:10]} | `{known.digest}` |"
        for stage in Stage
        if (known := evidence.get(stage)) is not None
    ]
    head = ["## Evidence", "", "| stage | outcome | date | digest of its inputs |"]
    return [*head, "| --- | --- | --- | --- |", *rows, ""]
