"""Writes the table "does it hold native code?" over the releases that matrix.toml tries.

    python scripts/audit_releases.py --arch sm_120 --out results/audit

Each wheel is fetched, audited and removed before the next; what is there already is kept, so that
an interrupted run goes on. About 9 GB are downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.version import Version

from pinproof.audit import arch as archs
from pinproof.audit import audit
from pinproof.audit.arch import Status
from pinproof.errors import PinproofError, ResolveError
from pinproof.evidence.store import read_json, write_json, write_text
from pinproof.locks.download import Target
from pinproof.matrix import matrixfile
from pinproof.matrix.axis import Kind, parse

PROJECTS = ("torch", "flash-attn", "vllm")

HEAD = """\
# Does it hold native {arch} code?

Read from the wheels for Python {python} on {platform}, by `python scripts/audit_releases.py`; what
every library holds stands in the JSON files beside this page. No GPU took part.

NATIVE: machine code for {arch}. PTX-JIT: the driver compiles it at first use, and must be as new as
the table says. NONE: neither. A unit is a translation unit; C++ symbols are those of torch that
tie a library to one torch (0: torch's stable ABI, or none).

| release | library | status | units | SASS | PTX | driver | C++ symbols of torch |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def releases(matrix_file: Path, target: str) -> list[str]:
    """Return every release of `PROJECTS` that a matrix for `target` tries, oldest first."""
    file = matrixfile.load(matrix_file)
    found: set[tuple[int, Version]] = set()
    for matrix in file.matrices:
        for rank, project in enumerate(PROJECTS):
            for text in matrix.axes.get(project, ()) if matrix.target == target else ():
                if parse(project, text).kind is Kind.VERSION:
                    found.add((rank, Version(text)))
    return [f"{PROJECTS[rank]}=={version}" for rank, version in sorted(found)]


def examine(release: str, order: audit.Order) -> dict[str, Any]:
    """Audit one release; where it has no wheel, say so."""
    try:
        (found,) = audit.run([release], order)
    except ResolveError as error:
        return {"subject": release, "wheel": "", "arch": str(order.gpu), "problem": error.what}
    return found.to_json()


def rows(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one release: its libraries with code that runs, then the others."""
    if found.get("problem"):
        yield _line(found["subject"], "no wheel on the index", "", "", "", "", "", "")
        return
    libraries = found["libraries"]
    runs = (Status.NATIVE, Status.PTX_JIT)
    for each in libraries:
        if each["status"] in runs:
            sass = " ".join(name.removeprefix("sm_") for name in each["sass"])
            units = ", ".join(f"{count} {status}" for status, count in each["units"].items())
            needs = each["torch_symbols"]
            yield _line(
                *(found["subject"], f"`{_short(each['file'])}`", each["status"], units, sass),
                *(", ".join(each["ptx"]), each["driver"], "" if needs is None else str(needs)),
            )
    none = [f"`{_short(each['file'])}`" for each in libraries if each["status"] == Status.NONE]
    if none:
        yield _line(found["subject"], ", ".join(none), Status.NONE, "", "", "", "", "")


def _short(file: str) -> str:
    return file.rpartition("/")[2]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def main(arguments: Iterable[str] | None = None) -> int:
    """Audit what is missing, and write the table anew."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", default="sm_120")
    parser.add_argument("--matrix-file", type=Path, default=Path("matrix.toml"))
    parser.add_argument("--out", type=Path, default=Path("results/audit"))
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--platform", default="x86_64-manylinux_2_35")
    asked = parser.parse_args(arguments if arguments is None else list(arguments))
    target = Target(python=asked.python, platform=asked.platform)
    order = audit.Order(gpu=archs.parse(asked.arch), target=target)
    table = [HEAD.format(arch=asked.arch, python=asked.python, platform=asked.platform)]
    for release in releases(asked.matrix_file, asked.arch):
        file = asked.out / asked.arch / f"{release.replace('==', '-')}.json"
        found = read_json(file)
        if found is None:
            print(release, file=sys.stderr, flush=True)
            found = examine(release, order)
            write_json(file, found)
        table += rows(found)
    write_text(asked.out / f"{asked.arch}.md", "".join(table))
    print(json.dumps({"table": str(asked.out / f"{asked.arch}.md")}))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PinproofError as problem:
        sys.exit(f"audit_releases: {problem}")
