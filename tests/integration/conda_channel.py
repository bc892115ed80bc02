"""A conda channel on disk: real packages, made by py-rattler-build, indexed by rattler.

They depend on each other, on what the machine has (``__cuda``, ``__cuda_arch``), and are of both
kinds, for linux-64 and noarch. Python is a link to the one that runs the tests, beside a
``pyvenv.cfg``: that isolates as a real one does, in 1.2 kB.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

VERSION = "{}.{}.{}".format(*sys.version_info[:3])
SITE = "lib/python{}.{}/site-packages".format(*sys.version_info[:2])
DAY = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)

#: A process that indexes ends as `os._exit`: rattler's runtime may end it by a signal else.
INDEX = """
import asyncio, os, sys
from rattler.index import index_fs
asyncio.run(index_fs(sys.argv[1], force=True))
os._exit(0)
"""

SPEC = """
name: cuda-13.0
channels: ["{channel}"]
platforms: [linux-64]
dependencies: [python, pip, cuda-nvcc 13.0.*, blackwell-kernels, greeting]
virtual-packages: {{__cuda: "13.0", __cuda_arch: "{arch}"}}
"""


def make(root: Path) -> Path:
    """Make the channel in the directory `root`, and return it."""
    for subdir in ("linux-64", "noarch"):
        (root / subdir).mkdir(parents=True)
    python = {
        "bin/python": Path(sys.executable).resolve(),
        "pyvenv.cfg": f"home = {Path(sys.base_prefix, 'bin')}\nversion = {VERSION}\n",
        f"{SITE}/README.txt": "of conda\n",
    }
    add(root, "python", VERSION, files=python)
    files = dist_info("pip", "26.0", "site-packages")
    add(root, "pip", "26.0", noarch="python", files=files, depends=["python"])
    add(root, "cuda-version", "13.0", noarch="generic")
    add(root, "cuda-nvcc", "13.0.88", depends=["cuda-cudart >=13", "__cuda >=13", "cuda-version"])
    add(root, "cuda-cudart", "13.0.96", files={"lib/libcudart.so.13": "machine code\n"})
    add(root, "blackwell-kernels", "1.0", depends=["__cuda_arch >=12.0"])
    files = {
        "site-packages/greeting.py": "WORDS = 'hello from conda'\n",
        **dist_info("greeting", "1.0", "site-packages"),
    }
    add(
        root,
        "greeting",
        "1.0",
        noarch="python",
        files=files,
        depends=["python >=3.11", "pip", "farewell"],
    )
    files = dist_info("farewell", "1.0", "site-packages")
    add(root, "farewell", "1.0", noarch="python", files=files, depends=["python"])
    return index(root)


def dist_info(name: str, version: str, site: str = SITE) -> dict[str, str]:
    """Return the files by which a Python package is known, as conda writes them."""
    info = f"{name}-{version}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "INSTALLER": "conda\n",
    }
    # Conda rewrites scripts as it installs, and then the digests here are no longer theirs.
    rows = [f"{name}.py,sha256=not-any-more,1", *(f"{info}/{file},," for file in files)]
    files["RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    return {f"{site}/{info}/{file}": text for file, text in files.items()}


def add(
    channel: Path,
    name: str,
    version: str,
    *,
    files: dict[str, str | Path] | None = None,
    depends: list[str] | None = None,
    noarch: str | None = None,
    build: str = "0",
) -> Path:
    """Put a package into a channel, and return its archive; a `Path` among its files is a link."""
    import rattler_build

    stage = channel.parent / f"stage-of-{channel.name}" / f"{name}-{version}-{build}"
    for file, content in (files or {f"share/{name}.txt": f"{name} {version}\n"}).items():
        path = stage / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            path.write_text(content)
    subdir = "noarch" if noarch else "linux-64"
    (channel / subdir).mkdir(parents=True, exist_ok=True)
    made = rattler_build.assemble_package(
        name,
        version,
        subdir,
        build,
        output_dir=channel / subdir,
        files_dir=stage,
        depends=depends or [],
        noarch=noarch,
        timestamp=DAY,
    )
    return Path(made.path)


def index(channel: Path) -> Path:
    """Write the index of a channel anew, and return the channel."""
    subprocess.run([sys.executable, "-c", INDEX, str(channel)], check=True)
    return channel


def specify(project: Path, channel: Path, arch: str = "12.0") -> Path:
    """Write the specification of an environment over the channel, and return its file."""
    path = project / "envs" / "cuda-13.0.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SPEC.format(channel=channel.as_uri(), arch=arch))
    return path
