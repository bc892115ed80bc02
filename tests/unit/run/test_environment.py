import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheels import make_wheel, sha256

from pinproof.errors import ConfigurationError
from pinproof.locks.installer import Installer, find_uv
from pinproof.locks.lock import Lock, Pin
from pinproof.run import environment, integrity, process
from pinproof.run.environment import Interpreter, System, Uv, isolated_env

HERE = "{}.{}".format(*sys.version_info[:2])


@pytest.mark.parametrize(
    "name",
    [
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONDONTWRITEBYTECODE",
        "CUDA_HOME",
        "PIP_INDEX_URL",
        "UV_INDEX_URL",
        "CONDA_PREFIX",
        "VIRTUAL_ENV",
        "HF_TOKEN",
        "HTTPS_PROXY",
        "LD_PRELOAD",
        "TORCH_CUDA_ARCH_LIST",
    ],
)
def test_what_could_change_a_cell_or_is_secret_does_not_reach_it(name):
    assert name not in isolated_env({name: "/caller"}, {})


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,20}", fullmatch=True), st.text(max_size=5)))
def test_only_what_is_allowed_reaches_a_cell(caller):
    own = {"PATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH"}
    own |= {"CUDA_DEVICE_ORDER", "CUDA_CACHE_MAXSIZE"}
    for name in isolated_env(caller, {}).keys() - own:
        assert environment.CELL_ENV.fullmatch(name)


def test_what_the_matrix_names_reaches_the_cell():
    found = isolated_env({"CUDA_HOME": "/caller"}, {"CUDA_HOME": "/named", "X": "1"})
    assert (found["CUDA_HOME"], found["X"]) == ("/named", "1")


def test_the_user_site_is_out_and_what_the_machine_needs_is_in():
    found = isolated_env({"HOME": "/h", "LANG": "C.UTF-8", "CUDA_VISIBLE_DEVICES": "1"}, {})
    assert found["PYTHONNOUSERSITE"] == "1"
    assert (found["HOME"], found["LANG"], found["CUDA_VISIBLE_DEVICES"]) == ("/h", "C.UTF-8", "1")


def test_the_search_path_is_without_the_caller_s_environments_and_the_working_directory():
    own = f"{sys.prefix}/bin" if sys.prefix != sys.base_prefix else "/venv/sbin"
    caller = {
        "PATH": f"/venv/bin:{own}:/conda/bin::/usr/bin:/bin",
        "VIRTUAL_ENV": "/venv",
        "CONDA_PREFIX": "/conda",
    }
    assert isolated_env(caller, {})["PATH"] == "/usr/bin:/bin"


def test_of_the_library_path_only_the_driver_reaches_a_cell(tmp_path):
    driver, toolkit, other = (tmp_path / name for name in ("driver", "toolkit", "other"))
    for directory in (driver, toolkit, other):
        directory.mkdir()
    (driver / "libcuda.so.1").touch()
    (toolkit / "libcuda.so.1").touch()
    (toolkit / "libcudart.so.13").touch()
    caller = {"LD_LIBRARY_PATH": f"{other}:{toolkit}:{driver}:"}
    assert isolated_env(caller, {})["LD_LIBRARY_PATH"] == str(driver)
    assert "LD_LIBRARY_PATH" not in isolated_env({"LD_LIBRARY_PATH": str(other)}, {})


@pytest.mark.parametrize(
    ("name", "told"),
    [("cnda", "Did you mean 'conda'"), ("sytem", "Did you mean 'system'"), ("", "unknown")],
)
def test_a_back_end_that_is_not_there_says_what_to_use(name, told):
    with pytest.raises(ConfigurationError, match=told) as caught:
        environment.backend(name)
    assert '"uv"' in caught.value.remedy


def test_an_interpreter_tells_its_version_and_packages():
    found = environment.look(Path(sys.executable))
    assert found.python == HERE
    assert "pytest" in found.packages
    assert any(text.startswith("pluggy") for text in found.requirements)
    assert not any("extra ==" in text for text in found.requirements)


@pytest.mark.parametrize("path", ["/bin/false", "/bin/echo", "/no/such/python"])
def test_what_is_no_python_is_named(path):
    with pytest.raises(ConfigurationError, match=path):
        environment.look(Path(path))


def test_a_cell_of_another_python_cannot_stand_on_the_system_one():
    system = System(interpreter=Interpreter(python="3.12"), executable=Path("/sys/python"))
    assert system.python("3.12") == "/sys/python"
    with pytest.raises(ConfigurationError, match=r"3\.11"):
        system.python("3.11")


class Place:
    """A directory with wheels, environments and a cache, and uv without a network."""

    def __init__(self, root):
        self.root = root
        env = {"UV_CACHE_DIR": str(root / "cache"), "UV_FIND_LINKS": str(root / "wheels")}
        path = os.environ["PATH"]
        self.tool = Installer(uv=find_uv(), env={**env, "PATH": path}, offline=True, no_index=True)

    def lock(self, **packages):
        files = [make_wheel(self.root / "wheels", n, v) for n, v in packages.items()]
        pins = [
            Pin(name=n, version=v, sha256=sha256(f), file=f.name)
            for (n, v), f in zip(packages.items(), files, strict=True)
        ]
        return Lock(python=HERE, product=tuple(pins))

    def venv(self, name, python=sys.executable):
        home = self.root / name
        subprocess.run([find_uv(), "venv", "-q", "--python", python, home], check=True)
        return home / "bin" / "python"

    def fill(self, backend, python, lock):
        file = self.root / "lock.txt"
        file.write_text(lock.text())
        return [
            process.run(command, env=self.tool.env)
            for command in backend.install(python, file, lock, self.tool)
        ]

    def packages(self, python):
        return dict(environment.look(python).packages)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_an_environment_holds_exactly_its_lock_also_when_it_is_used_again(place):
    python = place.venv("cell")
    assert all(done.ok for done in place.fill(Uv(), python, place.lock(alpha="1", beta="1")))
    assert place.packages(python) == {"alpha": "1", "beta": "1"}
    assert all(done.ok for done in place.fill(Uv(), python, place.lock(beta="2")))
    assert place.packages(python) == {"beta": "2"}
    assert all(done.ok for done in place.fill(Uv(), python, place.lock()))
    assert place.packages(python) == {}


def test_a_wheel_with_another_digest_is_not_installed(place):
    python, lock = place.venv("cell"), place.lock(alpha="1")
    make_wheel(place.root / "wheels", "alpha", "1", files={"alpha.py": "evil = 1\n"})
    assert not any(done.ok for done in place.fill(Uv(), python, lock))
    assert place.packages(python) == {}


def test_a_package_that_was_built_anew_under_its_version_is_told_by_its_record(place):
    def records(name, text):
        lock = place.lock(alpha="1")
        if text:
            wheel = make_wheel(place.root / "wheels", "alpha", "1", files={"alpha.py": text})
            lock = replace(lock, product=(replace(lock.product[0], sha256=sha256(wheel)),))
        python = place.venv(name)
        assert all(done.ok for done in place.fill(Uv(), python, lock))
        return environment.look(python).records

    first = records("first", "")
    assert first == records("second", "")
    assert first.keys() == {"alpha"}
    assert first != records("third", "new = 1\n")


def test_a_cell_on_a_virtual_environment_sees_its_packages_behind_its_own(place):
    """Also those that only a .pth file leads to, as with an editable install."""
    base = place.venv("base")
    place.fill(Uv(), base, place.lock(alpha="1", beta="1"))
    editable = place.root / "editable"
    editable.mkdir()
    (editable / "gamma.py").write_text("VERSION = 'editable'\n")
    (site,) = environment.look(base).paths
    Path(site, "gamma.pth").write_text(f"{editable}\n")
    cell = place.venv("cell", base)
    assert place.packages(cell) == {}

    system = environment.backend("system", system_python=base)
    assert system.system().packages == {"alpha": "1", "beta": "1"}
    assert all(done.ok for done in place.fill(system, cell, place.lock(beta="2")))
    assert place.packages(cell) == {"alpha": "1", "beta": "2"}
    script = "import alpha, beta, gamma; print(alpha.VERSION, beta.VERSION, gamma.VERSION)"
    done = process.run([cell, "-c", script], env=isolated_env(os.environ, {}))
    assert done.output == "1 2 editable\n"
    assert place.packages(base) == {"alpha": "1", "beta": "1"}


def test_an_edited_file_comes_back_from_the_cache_until_its_package_is_forgotten(place):
    lock = place.lock(alpha="1")
    first = place.venv("first")
    place.fill(Uv(), first, lock)
    (site,) = environment.look(first).paths
    with Path(site, "alpha.py").open("a") as file:
        file.write("edited = True\n")

    second = place.venv("second")
    place.fill(Uv(), second, lock)
    (site,) = environment.look(second).paths
    (change,) = integrity.check(Path(site))
    shutil.rmtree(place.root / "second")
    assert process.run(environment.forget([change.package], place.tool), env=place.tool.env).ok
    place.fill(Uv(), place.venv("second"), lock)
    assert integrity.check(Path(site)) == []
