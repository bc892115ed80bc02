r"""Build flash-attn on a machine without a network, and prove it with the attention suite.

    python3 scripts/build_offline.py dist/gpu-build --out dist/gpu-out --prove \
        --arch sm_90 --profile serving --jobs 16

The directory holds the source archive of flash-attn, and the wheels of what the build and
Pinproof need. On a machine with a network:

    pip download --only-binary :all: --dest dist/gpu-build \
        pip "setuptools<81" wheel ninja packaging psutil filelock rich tabulate pyelftools einops
    pip download --no-binary :all: --no-deps --no-build-isolation --dest dist/gpu-build flash-attn

The build is against the torch of this Python. What is left of the words is passed to `pinproof
build`. A build that was stopped goes on where it was. Under --out lie build.json (time, jobs,
seconds of each unit, audit, sha256), the wheel, and with --prove check.json: the full suite, put to
the wheel installed in a directory of its own. Runs with the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: What `pinproof build` imports, what flash-attn's own build does, and what the suite does.
HOST = ("filelock", "packaging", "psutil", "rich", "tabulate", "pyelftools")
TOOLS = ("pip", "setuptools", "wheel", "ninja", "einops")

BEGAN = time.monotonic()


def main() -> int:
    """Make an environment over this Python's packages, build in it, and prove what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("house", type=Path, help="the directory with archive and wheels")
    parser.add_argument("--out", type=Path, default=Path("dist/build-offline"))
    parser.add_argument("--prove", action="store_true", help="run the attention suite on the wheel")
    asked, words = parser.parse_known_args()
    house, out = asked.house.resolve(), asked.out.resolve()
    archives = sorted(house.glob("flash_attn-*.tar.gz"))
    if len(archives) != 1:
        sys.exit(f"build_offline: {house} holds {len(archives)} source archives of flash-attn")
    out.mkdir(parents=True, exist_ok=True)
    say("environment")
    python = environment(ROOT / ".nox" / "build-offline", house)
    say("build")
    record = out / "build.json"
    command = [python, "-m", "pinproof", "build", "flash-attn", archives[0], "--python", python]
    done = run([*command, "--json", record, *words], PYTHONPATH=str(ROOT / "src"))
    if done == 0:
        made = json.loads(record.read_text(encoding="utf-8"))
        shutil.copy(made["path"], out)
        print(summary(made), flush=True)
        if asked.prove:
            done = prove(python, made, house, out)
    say(f"finished with {done}")
    return done


def environment(home: Path, house: Path) -> Path:
    """Make the environment, with the packages of this Python behind its own; return its Python.

    Not ``--system-site-packages``: if this Python belongs to a virtual environment, that leads
    past it.
    """
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    behind = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in behind]
    (site / "behind.pth").write_text("".join(lines), encoding="utf-8")
    pip = next(iter(sorted(house.glob("pip-*.whl"))))
    words = ("install", "--quiet", "--no-index", "--find-links", str(house), "--upgrade")
    subprocess.run(
        [str(python), f"{pip}/pip", *words, "--ignore-installed", *TOOLS, *HOST], check=True
    )
    return python


def prove(python: Path, made: dict[str, Any], house: Path, out: Path) -> int:
    """Install the wheel into a directory of its own, and put the full suite to it.

    Returns the exit status of the check; 1 where another library was loaded than the audited one.
    """
    site = out / "site"
    shutil.rmtree(site, ignore_errors=True)
    say("install")
    words = ("install", "--quiet", "--no-index", "--no-deps", "--target", site)
    run([python, "-m", "pip", *words, made["path"], *house.glob("einops-*.whl")])
    say("suite")
    without = [word for name in made["without"] for word in ("--without", name)]
    check = [python, "-m", "pinproof_cell", "check", "--provider", "flash-attn-2", *without]
    file = out / "check.json"
    path = os.pathsep.join((str(site), str(ROOT / "src")))
    done = run([*check, "--device", "cuda", "--suite", "full", "--json", file], PYTHONPATH=path)
    if not file.is_file():
        return done or 1
    loaded = json.loads(file.read_text(encoding="utf-8"))["extensions"]
    audited = {each["sha256"] for each in made["libraries"]}
    same = bool(loaded) and {each["sha256"] for each in loaded} <= audited
    print(f"the library that was tested is {'' if same else 'NOT '}the one that was audited")
    return done if same else 1


def run(command: Sequence[object], **env: str) -> int:
    """Run a command of the project, and return its exit status."""
    there = {**os.environ, "PINPROOF_ROOT": str(ROOT), **env}
    return subprocess.run(list(map(str, command)), env=there, cwd=ROOT, check=False).returncode


def summary(made: dict[str, Any]) -> str:
    """Return what is worth reading of a build's record, as JSON."""
    told = ("wheel", "sha256", "size", "seconds", "jobs", "without", "tools", "units")
    audit = [
        {key: each[key] for key in ("file", "status", "units", "sass", "ptx", "sha256")}
        for each in made["libraries"]
    ]
    return json.dumps({**{key: made[key] for key in told}, "libraries": audit})


def say(what: str) -> None:
    """Tell what begins, and how far into the run that is."""
    print(f"=== {time.monotonic() - BEGAN:.0f} s: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
