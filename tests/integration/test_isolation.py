"""A cell sees nothing of the caller's environment, and can change nothing that cells share.

The cells are real, run as the product runs them; their torch is a small wheel that writes down
what it sees, and tries what it must not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from checkouts import ROOT
from wheels import make_wheel

from pinproof.locks.installer import find_uv

TORCHES = ("1.0+cpu", "2.0+cpu")

#: The torch of these cells: leaves one file for every process that imports it.
TORCH = '''
import ctypes, errno, json, os, pathlib, sys

__version__ = {version!r}

def attempt(path):
    """Change a file that is there, or make one, as a program does that means no harm."""
    try:
        with open(path, "ab") as file:
            file.write(b"# edited")
    except OSError as error:
        return errno.errorcode[error.errno]
    return "written"

def loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True

told = pathlib.Path(os.environ["TOLD"])
if told.is_dir():
    (told / f"{{os.getpid()}}.json").write_text(json.dumps({{
        "version": __version__,
        "environment": dict(os.environ),
        "path": sys.path,
        "modules": sorted(sys.modules),
        "flags": [sys.flags.optimize, sys.flags.no_user_site, sys.flags.dont_write_bytecode],
        "maps": pathlib.Path("/proc/self/maps").read_text(),
        "cudart": loads("libcudart.so.99"),
        "writes": {{path: attempt(path) for path in os.environ["TRY"].split(":")}},
    }}))
'''

MATRIX = """
format = 1
[targets.cpu]
[[matrix]]
name = "tiny"
target = "cpu"
default = true
checks = ["correctness"]
axes = {{ torch = [{torches}], triton = ["bundled"] }}

[[matrix.overrides]]
select = 'target == "cpu"'
env = {{ TOLD = "{told}", TRY = "{tried}" }}
"""

#: A run in a shell whose variables no Python could even start with.
RUN = """
import json, os, sys
os.environ.update(json.loads(sys.argv[1]))
from pinproof.cli import main
main(sys.argv[2:])
"""

#: What a program may do to a file of a package; without the power of root over mode bits, so that
#: it is stopped by what stops a user.
EDIT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: root only, and gone by exec
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
"""


NO_NAMESPACES = pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0
    and subprocess.run(["unshare", "-Um", "true"], check=False, capture_output=True).returncode
    != 0,
    reason="this machine makes no mount namespaces",
)


@dataclass
class World:
    """Two cells that share every package but torch, and a caller's shell full of poison."""

    home: Path
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.home / "project" / ".pinproof"

    @property
    def cells(self) -> list[Path]:
        """The environments."""
        return sorted(self.home.glob("project/.nox/cpu-*"))

    def files(self, name: str) -> list[Path]:
        """Return that file of every environment."""
        return [next(cell.glob(f"lib/python*/site-packages/{name}")) for cell in self.cells]

    @cached_property
    def poison(self) -> dict[str, str]:
        """Write what the variables name, and return the variables."""
        place = self.home / "poison"
        user = "lib/python{}.{}/site-packages".format(*sys.version_info[:2])
        for file, text in {
            "path/sitecustomize.py": "import sys; sys.modules['poisoned_path'] = sys",
            f"user/{user}/usercustomize.py": "import sys; sys.modules['poisoned_user'] = sys",
            "startup.py": "import sys; sys.modules['poisoned_startup'] = sys",
            "cuda/bin/nvcc": "#!/bin/sh\n",
            "conda/bin/python": "#!/bin/sh\nexit 9\n",
            "venv/bin/python": "#!/bin/sh\nexit 9\n",
            "lib/lib.c": "int poisoned(void) { return 1; }\n",
        }.items():
            path = place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        for name in ("libcudart.so.99", "libpreload.so"):
            words = ["cc", "-shared", "-o", place / "lib" / name, place / "lib/lib.c"]
            subprocess.run(words, check=True)
        return {
            "PYTHONPATH": f"{place}/path",
            "PYTHONHOME": f"{place}/home",
            "PYTHONSTARTUP": f"{place}/startup.py",
            "PYTHONUSERBASE": f"{place}/user",
            "PYTHONOPTIMIZE": "2",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": f"{place}/lib",
            "LD_PRELOAD": f"{place}/lib/libpreload.so",
            "CUDA_HOME": f"{place}/cuda",
            "CUDA_PATH": f"{place}/cuda",
            "VIRTUAL_ENV": f"{place}/venv",
            "CONDA_PREFIX": f"{place}/conda",
            "CONDA_DEFAULT_ENV": "poisoned",
            "CONDA_EXE": f"{place}/conda/bin/conda",
            "PATH": f"{place}/conda/bin:{place}/venv/bin:{os.environ['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": f"{self.home}/wheels",
            "PIP_EXTRA_INDEX_URL": "https://user:a-password-of-pip@127.0.0.1:9/wheels",
            "UV_CACHE_DIR": f"{self.home}/cache",
            "UV_HTTP_TIMEOUT": "7",
            "UV_INDEX_PRIVATE_PASSWORD": "a-password-of-uv",
            "HF_TOKEN": "a-secret-of-hf",
            "GITHUB_TOKEN": "a-secret-of-github",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-aws",
            "MY_COMPANY_CREDENTIALS": "a-secret-of-mine",
            "TORCH_LOGS": "poisoned",
            "TRITON_INTERPRET": "0",
            "NCCL_DEBUG": "TRACE",
        }

    def run(self, *more: str) -> str:
        """Prove the cells as far as inspect, from the poisoned shell."""
        told = self.home / "told"
        for file in told.iterdir():
            file.unlink()
        words = ["run", "--matrix-file", f"{self.home}/project/matrix.toml", "--until", "inspect"]
        words += more
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(self.poison), *words],
            cwd=self.home / "project",
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        self.told = [json.loads(file.read_text()) for file in told.iterdir()]
        return done.stdout + done.stderr


def write(home: Path) -> World:
    """Write the project, and the wheels that it installs."""
    wheels = home / "wheels"
    for version in TORCHES:
        files = {"torch/__init__.py": TORCH.format(version=version)}
        make_wheel(wheels, "torch", version, requires=["lib"], files=files)
    for name in ("numpy", "pytest", "triton", "lib"):
        make_wheel(wheels, name, "99.0")
    project = home / "project"
    for directory in (home / "told", project / ".pinproof/builds", home / "cache"):
        directory.mkdir(parents=True)
    return World(home)


def matrix(world: World, tried: list[Path]) -> None:
    """Write the matrix, whose cells try to change the files `tried`."""
    text = MATRIX.format(
        torches=", ".join(f'"{version}"' for version in TORCHES),
        told=world.home / "told",
        tried=":".join(map(str, tried or [world.home / "nothing" / "there"])),
    )
    (world.home / "project" / "matrix.toml").write_text(text)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = write(tmp_path_factory.mktemp("isolation"))
    matrix(made, [])
    out = made.run()
    assert {each["version"] for each in made.told} == set(TORCHES), out
    return made


def seen_outside(world: World, *without: str) -> dict[str, Any]:
    """Return what the torch of a cell sees when its Python is started in the poisoned shell."""
    for file in (world.home / "told").iterdir():
        file.unlink()
    more = {"TOLD": f"{world.home}/told", "TRY": f"{world.home}/nothing/there"}
    poison = {name: text for name, text in world.poison.items() if name not in without}
    subprocess.run(
        [world.cells[0] / "bin/python", "-c", "import torch"],
        env={**os.environ, **poison, **more},
        check=True,
    )
    (file,) = (world.home / "told").iterdir()
    seen: dict[str, Any] = json.loads(file.read_text())
    return seen


def test_the_poison_works_where_nothing_holds_it_off(world: World) -> None:
    seen = seen_outside(world, "PYTHONHOME")
    assert seen["cudart"]
    assert "libpreload" in seen["maps"]
    assert "poisoned_path" in seen["modules"]
    assert f"{world.home}/poison/path" in seen["path"]
    assert seen["environment"]["HF_TOKEN"] == "a-secret-of-hf"
    with pytest.raises(subprocess.CalledProcessError):
        seen_outside(world)  # under such a PYTHONHOME no Python starts


def test_no_cell_sees_a_variable_of_the_caller(world: World) -> None:
    for seen in world.told:
        # PATH, PYTHONPATH, VIRTUAL_ENV and TRITON_INTERPRET it has, with values of its own.
        assert not world.poison.items() & seen["environment"].items()
        for name, text in seen["environment"].items():
            assert "poison" not in text, name
            assert "a-secret-of" not in text, name


def test_no_cell_imports_or_loads_what_the_caller_put_in_the_way(world: World) -> None:
    for seen in world.told:
        assert not [name for name in seen["modules"] if name.startswith("poisoned_")]
        assert not [entry for entry in seen["path"] if "poison" in entry]
        assert "poison" not in seen["maps"]
        assert not seen["cudart"]
        assert seen["flags"] == [0, 1, 0]


def test_no_secret_is_written_to_any_file(world: World) -> None:
    for file in (world.home / "project").rglob("*"):
        if file.is_file() and not file.is_symlink():
            data = file.read_bytes()
            assert b"a-secret-of" not in data, file
            assert b"a-password-of" not in data, file


def test_two_cells_share_the_bytes_of_a_package(world: World) -> None:
    first, second = world.files("lib.py")
    assert first.samefile(second)


@pytest.mark.parametrize("mode", ["ab", "r+b", "wb"])
def test_who_edits_a_package_in_one_cell_changes_no_other(world: World, mode: str) -> None:
    first, second = world.files("lib.py")
    before = second.read_bytes()
    edit = f"import sys; open(sys.argv[1], {mode!r}).write(b'edited')"
    done = subprocess.run(
        [sys.executable, "-c", EDIT, edit, first], capture_output=True, text=True, check=False
    )
    assert "PermissionError" in done.stderr
    assert second.read_bytes() == before == first.read_bytes()


def test_who_replaces_a_file_in_one_cell_changes_no_other(world: World) -> None:
    first, second = world.files("triton.py")
    before = second.read_bytes()
    partial = first.with_suffix(".new")
    partial.write_bytes(b"edited")
    partial.replace(first)
    assert second.read_bytes() == before
    assert [path for path in world.home.glob("cache/**/triton.py") if path.samefile(second)]
    matrix(world, [])
    (record, *_) = (world.store / "evidence" / world.cells[0].name).glob("inspect-*.json")
    record.unlink()
    assert "triton.py was edited after its install" in world.run()


@NO_NAMESPACES
def test_no_cell_can_write_into_a_cache_another_cell_or_its_own_packages(tmp_path: Path) -> None:
    world = write(tmp_path)
    matrix(world, [])
    world.run()
    (shared, *_) = (path for path in world.home.glob("cache/**/lib.py"))
    first, second = world.files("lib.py")
    evidence = next(world.store.glob("evidence/cpu-*/*.json"))
    closed = [
        *(shared, shared.with_name("new.py"), first, first.with_name("new.py")),
        *(second, second.with_name("new.py"), evidence, evidence.with_name("new.json")),
        world.store / "builds" / "new.whl",
    ]
    before = {path: path.read_bytes() for path in closed if path.exists()}
    matrix(world, [*closed, tmp_path / "open"])
    out = world.run()
    assert {each["version"] for each in world.told} == set(TORCHES), out
    for seen in world.told:
        assert seen["writes"].pop(str(tmp_path / "open")) == "written"
        assert set(seen["writes"].values()) == {"EROFS"}, seen["writes"]
    assert {path: path.read_bytes() for path in closed if path.exists()} == before


@NO_NAMESPACES
def test_no_cell_can_write_into_the_packages_of_the_system_that_it_stands_on(
    tmp_path: Path,
) -> None:
    world = write(tmp_path)
    python = tmp_path / "system" / "bin" / "python"
    env = {**os.environ, "UV_CACHE_DIR": f"{tmp_path}/cache", "UV_OFFLINE": "1"}
    subprocess.run([find_uv(), "venv", "-q", "--python", sys.executable, "system"], cwd=tmp_path)
    words = [find_uv(), "pip", "install", "-q", "--find-links", world.home / "wheels", "--no-index"]
    torch = [f"torch=={TORCHES[0]}", "lib"]
    subprocess.run([*words, "--python", python, *torch], env=env, check=True)
    (lib,) = (tmp_path / "system").glob("lib/python*/site-packages/lib.py")
    matrix(world, [lib, lib.with_name("new.py")])
    out = world.run("--backend", "system", "--python", str(python))
    assert {each["version"] for each in world.told} == {TORCHES[0]}, out
    assert {each for seen in world.told for each in seen["writes"].values()} == {"EROFS"}
