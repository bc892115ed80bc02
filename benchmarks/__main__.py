"""Measure the claims: ``python -m benchmarks [NAME...] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from benchmarks import (
    audit,
    creation,
    disk,
    expansion,
    listing,
    locking,
    noop,
    rattler_exit,
    second_run,
)
from benchmarks.claim import Claim
from pinproof.run.machine import this_machine

CLAIMS: dict[str, Callable[[Path], Claim]] = {
    "expansion": expansion.claim,
    "listing": listing.measure,
    "locking": locking.measure,
    "second-run": second_run.measure,
    "noop": noop.measure,
    "creation": creation.measure,
    "disk": disk.measure,
    "audit": audit.measure,
    "rattler-exit": rattler_exit.measure,
}


def main() -> int:
    """Measure and print; 1 where a claim does not hold, 2 where one could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLAIMS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    asked = parser.parse_args()
    if unknown := set(asked.names) - CLAIMS.keys():
        parser.error(
            f"no benchmark is called {', '.join(sorted(unknown))}; there is: {', '.join(CLAIMS)}"
        )
    load = os.getloadavg()[0]
    where = f"{this_machine()}, Python {platform.python_version()}"
    print(f"machine {where}, load {load:.1f}", flush=True)
    claims = []
    for name in asked.names or CLAIMS:
        try:
            with tempfile.TemporaryDirectory(prefix="pinproof-bench-") as scratch:
                claims.append(CLAIMS[name](Path(scratch)))
        except RuntimeError as error:
            print(f"{name} could not be measured: {error}", file=sys.stderr)
            return 2
        print(claims[-1], flush=True)
    if asked.json:
        document = {"machine": where, "load": load, "claims": [each.to_json() for each in claims]}
        asked.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if all(each.held for each in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
