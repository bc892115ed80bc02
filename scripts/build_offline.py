r"""Build flash-attn on a machine without a network, against the torch that its Python has.

    python3 scripts/build_offline.py dist/gpu-build --arch sm_90 --profile serving

The directory holds the source archive of flash-attn, and the wheels of what the build and Pinproof
need. On a machine with a network:

    pip download --only-binary :all: --dest dist/gpu-build \
        pip "setuptools<81" wheel ninja packaging psutil filelock rich tabulate pyelftools einops
    pip download --no-binary :all: --no-deps --no-build-isolation --dest dist/gpu-build flash-attn

What is left is passed to `pinproof build`. Runs with the standard library alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: What `pinproof build` imports, and what flash-attn's own build does.
HOST = ("filelock", "packaging", "psutil", "rich", "tabulate", "pyelftools")
TOOLS = ("pip", "setuptools", "wheel", "ninja", "einops")


def main() -> int:
    """Make an environment over this Python's packages, and build in it."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    house = Path(sys.argv[1]).resolve()
    archives = sorted(house.glob("flash_attn-*.tar.gz"))
    if len(archives) != 1:
        sys.exit(f"build_offline: {house} holds {len(archives)} source archives of flash-attn")
    python = environment(ROOT / ".nox" / "build-offline", house)
    command = [python, "-m", "pinproof", "build", "flash-attn", archives[0], "--python", python]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PINPROOF_ROOT": str(ROOT)}
    return subprocess.run([*map(str, command), *sys.argv[2:]], env=env, check=False).returncode


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
    words = ("install", "--no-index", "--find-links", str(house), "--upgrade", "--ignore-installed")
    subprocess.run([str(python), f"{pip}/pip", *words, *TOOLS, *HOST], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
