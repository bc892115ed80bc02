"""A hundred no-op cells in warm environments, against `nox -j 2` and `tox -p 2` on the same.

Each cell installs an empty lock into an environment that holds it already. The others run the
very command that a cell runs, with the same variables, in environments of their own that are as
warm. The three take turns, so that whatever else the machine does meets all of them; on a busy
machine their processor seconds say more than the clock.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.checkout import NOX, ROOT, Timing, environment, timed
from benchmarks.claim import Claim, median
from pinproof.locks.installer import installer
from pinproof.locks.lock import Lock
from pinproof.run.environment import Uv

Run = Callable[[], Timing]

CELLS = 100
ROUNDS = 5
JOBS = 2
PYTHON = "{}.{}".format(*sys.version_info[:2])

MATRIX = """format = 1
[targets.cpu]
[[matrix]]
name = "noop"
target = "cpu"
checks = []
axes = {{ torch = ["2.13.0"], python = [{pythons}] }}

[[matrix.overrides]]
select = 'target == "cpu"'
without = ["torch", "numpy", "pytest", "triton"]
"""

NOXFILE = """import nox

COMMAND = {command!r}


def noop(session):
    python = session.virtualenv.location + "/bin/python"
    session.run(*COMMAND, "--python", python, {lock!r}, external=True)


for number in range({cells}):
    made = nox.session(
        name=f"noop{{number:02}}",
        python={python!r},
        venv_backend="uv",
        reuse_venv=True,
        allow_parallel=True,
    )
    made(noop)
"""

TOX = """[tox]
env_list = noop{{0-{last}}}
no_package = true

[testenv]
skip_install = true
base_python = python{python}
allowlist_externals = *
pass_env = SSL_CERT_DIR
commands = {command} --python {{env_python}} {lock}
"""


def measure(scratch: Path) -> Claim:
    """Let each make its environments, then time all three in turn."""
    lock = scratch / "lock.txt"
    lock.write_text("", encoding="utf-8")
    runs = {
        "pinproof": _pinproof(scratch / "pinproof"),
        "nox": _nox(scratch / "nox", lock),
        "tox": _tox(scratch / "tox", lock),
    }
    for run in runs.values():
        run()
    seen: dict[str, list[Timing]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            seen[name].append(run())
    wall = {name: min(each.wall for each in took) for name, took in seen.items()}
    cpu = {name: median([each.cpu for each in took]) for name, took in seen.items()}
    told = (
        f"{name} {wall[name]:.1f} s ({wall['pinproof'] / wall[name]:.2f} x), processors"
        f" {cpu[name]:.1f} s ({cpu['pinproof'] / cpu[name]:.2f} x)"
        for name in ("nox", "tox")
    )
    return Claim(
        name="noop",
        asked=f"{CELLS} no-op cells no slower than nox -j {JOBS} and tox -p {JOBS}",
        seen="; ".join([f"{wall['pinproof']:.1f} s, processors {cpu['pinproof']:.1f} s", *told]),
        held=all(took["pinproof"] <= min(took.values()) for took in (wall, cpu)),
        data={name: [[each.wall, each.cpu] for each in took] for name, took in seen.items()},
    )


def _pinproof(root: Path) -> Run:
    root.mkdir()
    pythons = ", ".join(f'"{PYTHON}.{number}"' for number in range(CELLS))
    (root / "matrix.toml").write_text(MATRIX.format(pythons=pythons), encoding="utf-8")
    words = (sys.executable, "-m", "pinproof", "run", "--matrix", "noop", "--jobs", str(JOBS))
    env = environment(PYTHONPATH=str(ROOT / "src"), PINPROOF_ROOT=str(root))

    def run() -> Timing:
        # The lock stays known, as it does for the others; every cell has to run.
        for record in root.glob(".pinproof/evidence/cpu-*/install-*.json"):
            record.unlink()
        took = timed(words, root, env, code=3)  # a cell without checks proves nothing
        if took.output.count(" ok cpu-") != CELLS:
            raise RuntimeError(took.output[-4000:])
        return took

    return run


def _nox(root: Path, lock: Path) -> Run:
    root.mkdir()
    text = NOXFILE.format(command=_sync(), lock=str(lock), cells=CELLS, python=PYTHON)
    (root / "noxfile.py").write_text(text, encoding="utf-8")
    return lambda: timed((*NOX, "-j", str(JOBS)), root)


def _tox(root: Path, lock: Path) -> Run:
    root.mkdir()
    command = shlex.join(_sync())
    text = TOX.format(command=command, lock=lock, last=CELLS - 1, python=PYTHON)
    (root / "tox.ini").write_text(text, encoding="utf-8")
    return lambda: timed((sys.executable, "-m", "tox", "-p", str(JOBS)), root)


def _sync() -> list[str]:
    """Return the command that fills a cell, without its environment and its lock."""
    tool = installer()
    (words,) = Uv().install(Path(), Path(), Lock(python=PYTHON), tool)
    return words[: words.index("--python")]
