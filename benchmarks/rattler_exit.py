"""How many short runs of the child that has rattler are ended by a signal, out of 200."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks.claim import Claim
from pinproof.locks.conda import child
from pinproof.run import process

RUNS = 200

#: Runs of the same child that end as a Python usually does: they show what is avoided.
CONTROL = 100

USUAL = "import sys; from pinproof.locks.conda import worker; sys.exit(worker.main(sys.argv[1:]))"

#: A channel that can be solved over; nothing is installed, so that there need be no packages.
RECORD = {
    "name": "python",
    "version": "3.12.0",
    "build": "0",
    "build_number": 0,
    "depends": [],
    "subdir": "linux-64",
    "md5": "0" * 32,
    "sha256": "0" * 64,
}


def measure(scratch: Path) -> Claim:
    """Solve again and again, each time in a process of its own, and count how they end."""
    channel = _channel(scratch / "channel")
    order, out = scratch / "order.json", scratch / "answer.json"
    asked = {"platform": "linux-64", "virtual": {"__cuda": "13.0"}, "dependencies": ["python"]}
    order.write_text(json.dumps({**asked, "channels": [channel]}), encoding="utf-8")
    ours = child.command("solve", str(order), str(out))
    usual = [ours[0], "-c", USUAL, *ours[3:]]
    ends = {"ours": _ends(ours, out, RUNS), "usual": _ends(usual, out, CONTROL)}
    signals = {name: {k: n for k, n in found.items() if k < 0} for name, found in ends.items()}
    lost = sum(signals["ours"].values())
    return Claim(
        name="rattler-exit",
        asked=f"none of {RUNS} short rattler runs ended by a signal (139, 134)",
        seen=f"{lost} of {RUNS}; {sum(signals['usual'].values())} of {CONTROL} that end as usual",
        held=lost == 0 and ends["ours"] == {0: RUNS},
        data={name: {str(k): n for k, n in found.items()} for name, found in ends.items()},
    )


def _ends(words: list[str], out: Path, runs: int) -> Counter[int]:
    """Count the return codes. Raises RuntimeError where a run that ended well left no answer."""
    ends: Counter[int] = Counter()
    for _ in range(runs):
        out.unlink(missing_ok=True)
        done = process.run(words, env=child.environment(), timeout=120)
        ends[done.returncode] += 1
        if done.ok and "packages" not in json.loads(out.read_text(encoding="utf-8")):
            raise RuntimeError(f"the child did not solve: {out.read_text(encoding='utf-8')}")
    return ends


def _channel(root: Path) -> str:
    """Write the index of a channel with one package, and return its address."""
    for subdir, records in (("linux-64", {"python-3.12.0-0.conda": RECORD}), ("noarch", {})):
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": records}
        (root / subdir).mkdir(parents=True)
        (root / subdir / "repodata.json").write_text(json.dumps(index), encoding="utf-8")
    return root.as_uri()
