"""A real extension of many small units that ninja compiles, as flash-attn's are by torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from checkouts import ROOT

from pinproof.builds import source
from pinproof.builds.build import Build
from pinproof.locks import installer

UNITS = 24

#: Each compiler run first writes its unit's name into $COMPILED, so that runs can be counted.
SETUP = f"""
import os, pathlib, subprocess, sys
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

class Ninja(build_ext):
    def build_extension(self, extension):
        work = pathlib.Path(self.build_temp).resolve(); work.mkdir(parents=True, exist_ok=True)
        here = pathlib.Path(__file__).parent.resolve()
        command = "echo $name >> $$COMPILED && sleep 0.1 && g++ -fPIC -c $in -o $out"
        lines = ["rule cc", "  command = " + command]
        objects = []
        for n in range({UNITS}):
            out = work / f"unit{{n}}.o"
            objects.append(str(out))
            lines += [f"build {{out}}: cc {{here}}/unit{{n}}.cpp", f"  name = unit{{n}}"]
        (work / "build.ninja").write_text("\\n".join(lines) + "\\n")
        jobs = os.environ["MAX_JOBS"]
        if os.environ.get("HUNGRY") and int(jobs) > 2:
            sys.exit("g++: fatal error: Killed signal terminated program cc1plus")
        subprocess.run(["ninja", "-j", jobs], cwd=work, check=True)
        target = pathlib.Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["g++", "-shared", "-o", str(target), *objects], check=True)

setup(name="flash-attn", version="2.8.3", ext_modules=[Extension("flash_attn_2_cuda", [])],
      cmdclass={{"build_ext": Ninja}}, py_modules=[])
"""


def write(directory: Path) -> Path:
    """Write the source tree of the project, and return it."""
    directory.mkdir(parents=True)
    (directory / "setup.py").write_text(SETUP)
    for number in range(UNITS):
        text = f"// a small unit\nint unit{number}() {{ return 0; }}\n"
        (directory / f"unit{number}.cpp").write_text(text)
    return directory


def environment(home: Path) -> Path:
    """Make an environment that can build it, and return its Python."""
    tool = installer.installer()
    subprocess.run([tool.uv, "venv", "-q", "--python", sys.executable, home], check=True)
    python = home / "bin" / "python"
    wanted = ("pip", "setuptools<81", "wheel", "ninja")
    words = [tool.uv, "pip", "install", "-q", *tool.source_args, "--python", str(python), *wanted]
    subprocess.run(words, env=dict(tool.env), check=True)
    # Its units are C++ alone: of the toolkit, which lies where wheels put it, only its version is
    # asked.
    (site,) = home.glob("lib/python*/site-packages")
    for part in ("bin", "include", "nvvm", "lib"):
        (site / "nvidia" / "cu13" / part).mkdir(parents=True)
    nvcc = site / "nvidia" / "cu13" / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    return python


@dataclass(frozen=True)
class Project:
    """The project, the environment that builds it, and where its wheels go."""

    tree: Path
    python: Path
    store: Path

    @property
    def compiled(self) -> list[str]:
        """The units that a compiler was run for, in their order."""
        log = self.store / "compiled"
        return log.read_text().split() if log.is_file() else []

    def build(self, **env: str) -> Build:
        """Return the build of the tree as it is now."""
        self.store.mkdir(parents=True, exist_ok=True)
        return Build(
            source=source.describe("flash-attn", str(self.tree)),
            torch="2.13.0",
            cuda="13.0",
            archs="120",
            python="3.11",
            env=tuple({"COMPILED": str(self.store / "compiled"), **env}.items()),
        )

    def start(self, build: Build, *words: str) -> subprocess.Popen[str]:
        """Start `pinproof build`, and do not wait for it."""
        order = self.store / "order.json"
        text = json.dumps(build.to_json())
        if not order.is_file() or order.read_text() != text:  # another process may read it now
            order.write_text(text)
        command = [sys.executable, "-m", "pinproof", "build", "--order", str(order)]
        command += ["--python", str(self.python), "--store", str(self.store), *words]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        return subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, build: Build, *words: str) -> tuple[int, str]:
        """Run `pinproof build` to its end; return the exit code and what it said."""
        child = self.start(build, *words)
        said, _ = child.communicate(timeout=300)
        return child.returncode, said
