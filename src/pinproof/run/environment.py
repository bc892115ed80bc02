"""Where a cell lives: its interpreter, its isolation, the commands that fill it.

Decisions, with what was measured for torch 2.13.0+cpu and triton:

- Wheels are hard links into uv's cache, since copies would cost 1.6 GB a cell, and the Python
  files alone 117 MB. They are read-only, and `integrity` notices an edit all the same.
- ``uv pip sync`` and not ``install``: the environment holds exactly its lock, also when it is
  used again.
- ``.pyc`` files are written when a module is first imported: 26-57 MB a cell, and 1.8 s less for
  every later process. Compiling all of them at install time would take about 130 MB. They go to a
  directory of their own, so that a cell runs with the files of its wheels read-only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pinproof.errors import ConfigurationError, InfrastructureError, did_you_mean
from pinproof.locks.installer import Installer
from pinproof.locks.lock import Lock
from pinproof.run import process, read_only

if TYPE_CHECKING:
    from pinproof.matrix.cell import Cell

#: What of the caller's environment a cell sees. Everything else, tokens above all, stays out.
CELL_ENV = re.compile(
    r"HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|SSL_CERT_(FILE|DIR)"
    r"|CUDA_VISIBLE_DEVICES|NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES)"
)

#: Prints what an interpreter has: run with -I, so that nothing of the caller counts.
_QUERY = """
import hashlib, importlib.metadata as m, json, os, sys, sysconfig
known = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
named = ("site-packages", "dist-packages")
paths = [p for p in sys.path if p in known or os.path.basename(p) in named]
packages, requires, records = {}, {}, {}
for d in m.distributions():
    if d.name and d.name not in packages:
        packages[d.name], requires[d.name] = d.version, list(d.requires or ())
        if (record := d.read_text("RECORD")):
            records[d.name] = hashlib.sha256(record.encode()).hexdigest()
version = "%d.%d" % sys.version_info[:2]
print("\\n" + json.dumps([version, paths, packages, requires, records]))
"""

#: Puts other site directories behind the environment's own. addsitedir, since it follows the
#: .pth files in them too: an editable install is nothing but one.
_OVERLAY = """
import pathlib, sys, sysconfig
lines = [f"import site; site.addsitedir({path!r})" for path in sys.argv[1:]]
target = pathlib.Path(sysconfig.get_path("purelib"), "pinproof-system.pth")
target.write_text("\\n".join(lines) + "\\n", encoding="utf-8")
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """What a Python has: its version, its site directories, its packages and their needs.

    ``records`` are the sha256 of the packages' RECORD files, which name the bytes of every file:
    a package that was built anew under its version has another. One without a RECORD is left out.
    """

    python: str
    paths: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    requires: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    records: Mapping[str, str] = field(default_factory=dict)

    @property
    def requirements(self) -> tuple[str, ...]:
        """Every requirement of every package, but for those of extras."""
        return tuple(text for needs in self.requires.values() for text in needs)


class Backend(Protocol):
    """A way to make the environment of a cell.

    ``name`` is what the matrix calls it, ``nox`` what nox calls it, ``nox_fills`` what nox is told
    while the environment is filled, ``params`` what nox hands on when it makes the environment.
    ``contents`` is the digest of the conda packages that it stands on, "" without any; ``has_nvcc``
    says that the CUDA compiler is one of them.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def nox(self) -> str: ...  # noqa: D102
    @property
    def nox_fills(self) -> str: ...  # noqa: D102
    @property
    def contents(self) -> str: ...  # noqa: D102
    @property
    def has_nvcc(self) -> bool: ...  # noqa: D102
    @property
    def params(self) -> tuple[str, ...]: ...  # noqa: D102

    def system(self) -> Interpreter | None:
        """Return what the environment starts from, or None where it starts empty."""

    def default(self, cell: Cell) -> str:
        """Return the Python version of `cell` where its axes name none.

        Raises ConfigurationError where the environment is not one for that cell.
        """

    def python(self, version: str) -> str:
        """Return what nox is asked for as interpreter, for a cell of that Python version."""

    def install(
        self, python: Path, lock_file: Path, lock: Lock, installer: Installer
    ) -> list[list[str]]:
        """Return the commands that make the environment of `python` hold exactly `lock`.

        They want ``installer.env`` as their environment. `lock_file` holds ``lock.text()``.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Uv:
    """An environment of its own, filled with wheels alone."""

    name: str = "uv"
    nox: str = "uv"
    nox_fills: str = "uv"
    contents: str = ""
    has_nvcc: bool = False
    params: tuple[str, ...] = ()

    def system(self) -> Interpreter | None:
        """Return None: the environment starts empty."""
        return None

    def default(self, cell: Cell) -> str:
        """Return the running version."""
        return "{}.{}".format(*sys.version_info[:2])

    def python(self, version: str) -> str:
        """Return `version`: uv finds that interpreter, or fetches it."""
        return version

    def install(
        self, python: Path, lock_file: Path, lock: Lock, installer: Installer
    ) -> list[list[str]]:
        """Return the one ``uv pip sync``."""
        return [pip("sync", python, lock_file, lock, installer)]


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """An environment on top of an interpreter that already has torch.

    Not ``--system-site-packages``: where the interpreter belongs to a virtual environment, that
    option leads to the interpreter below it, which has none of these packages.
    """

    interpreter: Interpreter
    executable: Path
    name: str = "system"
    nox: str = "uv"
    nox_fills: str = "uv"
    contents: str = ""
    has_nvcc: bool = False
    params: tuple[str, ...] = ()

    def system(self) -> Interpreter | None:
        """Return what the interpreter has."""
        return self.interpreter

    def default(self, cell: Cell) -> str:
        """Return the interpreter's version."""
        return self.interpreter.python

    def python(self, version: str) -> str:
        """Return the system interpreter. Raises ConfigurationError if it is another Python."""
        if version != self.interpreter.python:
            raise ConfigurationError(
                f"the cell wants Python {version}; the system interpreter is"
                f" Python {self.interpreter.python}",
                remedy='leave the python axis out, or use backend "uv"',
            )
        return str(self.executable)

    def install(
        self, python: Path, lock_file: Path, lock: Lock, installer: Installer
    ) -> list[list[str]]:
        """Return the ``uv pip sync``, and what puts the system's packages behind it."""
        overlay = [str(python), "-I", "-c", _OVERLAY, *self.interpreter.paths]
        return [pip("sync", python, lock_file, lock, installer), overlay]


def backend(name: str, *, system_python: Path | None = None) -> Backend:
    """Return the back end that the matrix calls `name`; "conda" is `conda_environment.named`.

    `system_python` is the interpreter of the system back end: where None, that of the caller's
    virtual environment if it has torch, else the first ``python3`` on PATH outside of any.
    Raises ConfigurationError for a name that is none.
    """
    if name == "uv":
        return Uv()
    if name == "system":
        if system_python is not None:
            return System(interpreter=look(system_python), executable=system_python)
        return _system_of(os.environ)
    raise ConfigurationError(
        f"unknown back end {name!r}.{did_you_mean(name, ('uv', 'system', 'conda'))}",
        remedy='use "uv", "system" or "conda"',
    )


def _system_of(caller: Mapping[str, str]) -> System:
    """Find the interpreter that a user means who names none."""
    own = Path(caller["VIRTUAL_ENV"], "bin", "python") if caller.get("VIRTUAL_ENV") else None
    if own is not None and own.is_file():
        found = look(own)
        if "torch" in found.packages:
            return System(interpreter=found, executable=own)
    outside = shutil.which("python3", path=os.pathsep.join(_search_path(caller)))
    if outside is None:
        raise ConfigurationError("no python3 is on PATH", remedy="name it with --python EXE")
    return System(interpreter=look(Path(outside)), executable=Path(outside))


def look(python: Path) -> Interpreter:
    """Ask an interpreter what it has. Raises ConfigurationError where it does not answer."""
    try:
        done = process.run([python, "-I", "-c", _QUERY], timeout=120)
    except OSError as error:
        raise ConfigurationError(f"{python} cannot be started: {error.strerror}") from None
    if done.timed_out:
        raise InfrastructureError(f"{python} took more than two minutes to list its packages")
    try:
        found = json.loads(done.output.strip().rpartition("\n")[2])
        version, paths, packages, requires, records = found
    except ValueError:
        last = done.output.strip().rpartition("\n")[2][:200]
        raise ConfigurationError(
            f"{python} is no Python that can list its packages",
            cause=last if re.match(r"\w+Error: ", last) else "",
            remedy="name another with --python EXE",
        ) from None
    needs = {
        name: tuple(text for text in texts if "extra ==" not in text)
        for name, texts in requires.items()
    }
    return Interpreter(
        python=version, paths=tuple(paths), packages=packages, requires=needs, records=records
    )


def forget(packages: Iterable[str], installer: Installer) -> list[str]:
    """Return the command that drops packages from uv's cache, after `integrity` found an edit.

    The edit went through a hard link into the cache, so an environment that is made again would
    get the edited file again, with ``--reinstall`` too. Delete the environment, forget, install.
    """
    return [installer.uv, "cache", "clean", *sorted(set(packages))]


def byte_code(home: Path) -> Path:
    """Return where the byte code of the environment in `home` goes."""
    return home / "pycache"


def shielded(words: Sequence[str], home: Path, shared: Iterable[Path]) -> list[str]:
    """Return the command that runs `words` in the environment in `home`, with `shared` read-only.

    It wants PYTHONPYCACHEPREFIX to be `byte_code`: the environment itself is read-only too.
    """
    byte_code(home).mkdir(exist_ok=True)
    return read_only.command(words, [*shared, home.parent], [byte_code(home)])


def isolated_env(caller: Mapping[str, str], cell_env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a process in a cell.

    Of the caller's only those that `CELL_ENV` names, a PATH without the caller's own virtual
    environments, and of LD_LIBRARY_PATH the directories of the GPU's driver: containers mount
    it there, and it belongs to the machine and not to the combination. `cell_env`, what the
    matrix names, comes last and wins.
    """
    env = {name: text for name, text in caller.items() if CELL_ENV.fullmatch(name)}
    env["PATH"] = os.pathsep.join(_search_path(caller))
    if driver := _driver_dirs(caller.get("LD_LIBRARY_PATH", "")):
        env["LD_LIBRARY_PATH"] = os.pathsep.join(driver)
    # The user's site directory is below every environment, and would be seen in it.
    env["PYTHONNOUSERSITE"] = "1"
    # As nvidia-smi counts them: the GPU that a run is about must be the one that it measures.
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    # What the driver compiles for one child the next one finds: a FlashAttention 2 without code for
    # this GPU is 65 MB of PTX, minutes of work, and more than fits in the driver's default.
    env["CUDA_CACHE_MAXSIZE"] = str(4 << 30)
    return env | dict(cell_env)


def _search_path(caller: Mapping[str, str]) -> list[str]:
    inside = [caller[name] for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if caller.get(name)]
    if sys.prefix != sys.base_prefix:
        inside.append(sys.prefix)
    entries = caller.get("PATH", os.defpath).split(os.pathsep)
    # An empty entry means the working directory, in which a cell must not find programs.
    return [
        entry
        for entry in entries
        if entry and not any(Path(entry).is_relative_to(root) for root in inside)
    ]


def _driver_dirs(search: str) -> list[str]:
    """Return the entries that hold the driver and no toolkit."""
    return [
        entry
        for entry in search.split(os.pathsep)
        if entry and (Path(entry) / "libcuda.so.1").exists() and not _has_toolkit(Path(entry))
    ]


def _has_toolkit(directory: Path) -> bool:
    return any(any(directory.glob(f"{name}.so*")) for name in ("libcudart", "libcublas"))


def pip(verb: str, python: Path, lock_file: Path, lock: Lock, installer: Installer) -> list[str]:
    """Return the ``uv pip sync`` of a lock, or the ``install``, which leaves what else is there."""
    own = ("--allow-empty-requirements",) if verb == "sync" else ("--no-deps", "--requirements")
    words: Sequence[str] = (
        *(installer.uv, "pip", verb, "--no-progress", "--require-hashes"),
        *("--only-binary", ":all:", "--link-mode", "hardlink"),
        *(("--torch-backend", lock.torch_backend) if lock.torch_backend else ()),
        *installer.source_args,
        *("--python", str(python), *own, str(lock_file)),
    )
    return list(words)
