import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheels import make_index, make_wheel, sha256

from pinproof.errors import ConfigurationError, InfrastructureError, NothingRanError, ResolveError
from pinproof.locks import collect, wheelhouse
from pinproof.locks.collect import Order
from pinproof.locks.installer import installer
from pinproof.locks.resolve import resolve
from pinproof.matrix import cell as cells
from pinproof.matrix import matrixfile
from pinproof.plan import recipe
from pinproof.run import environment, process

ROOT = Path(__file__).parents[3]
PLATFORM = "aarch64-manylinux_2_35"
OTHER = "3.12" if sys.version_info[:2] != (3, 12) else "3.13"
HERE = "{}.{}".format(*sys.version_info[:2])

MATRIX = """
format = 1
[targets.sm_90]
[[matrix]]
name = "tiny"
target = "sm_90"
checks = ["correctness"]
axes = { torch = ["2.13.0", "2.12.0"], triton = ["bundled"] }
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A machine whose only index lies on disk, with wheels for two Pythons and platforms."""
    files = tmp_path / "files"
    other = OTHER.replace(".", "")
    made = [
        make_wheel(files, "torch", "2.13.0", requires=["lib", "nvidia-cuda-runtime"]),
        make_wheel(files, "nvidia-cuda-runtime", "13.0.96"),
        make_wheel(files, "lib", "1.0", tag=f"cp{other}-cp{other}-manylinux_2_28_aarch64"),
        make_wheel(files, "lib", "1.0", tag="py3-none-manylinux_2_17_x86_64"),
        make_wheel(files, "host-tool", "1.0"),
        *(make_wheel(files, name, "99.0") for name in ("numpy", "pytest", "triton")),
    ]
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    # Pip reads no other file than this one, and the index is all that it says.
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = {make_index(tmp_path / 'simple', made)}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "matrix.toml").write_text(MATRIX)
    return tmp_path


def order(world, **more):
    values = {
        "matrix_file": world / "matrix.toml",
        "matrix": "tiny",
        "out": world / "house",
        "python": OTHER,
        "platform": PLATFORM,
        "requirements": ("host-tool",),
    }
    return Order(**{**values, **more})


def tiny_cells(world):
    return list(cells.expand(matrixfile.load(world / "matrix.toml").named("tiny")))


def test_wheels_are_collected_for_another_python_and_platform_than_this_one(world):
    told = []
    house = collect.make(order(world), lambda text, done, total: told.append((text, done, total)))
    tag = f"cp{OTHER.replace('.', '')}"
    assert f"lib-1.0-{tag}-{tag}-manylinux_2_28_aarch64.whl" in [w.file for w in house.wheels]
    assert wheelhouse.load(world / "house") == house
    for wheel in house.wheels:
        assert sha256(world / "house" / wheel.file) == wheel.sha256
    assert told[0][0].startswith("resolve")
    assert {"torch", "host_tool"} <= {wheel.file.partition("-")[0] for wheel in house.wheels}
    assert not (world / "house" / "wanted.txt").exists()


def test_each_wheel_says_which_cells_it_is_for(world):
    house = collect.make(order(world))
    owners = {wheel.file.partition("-")[0]: wheel.cells for wheel in house.wheels}
    good = next(cell for cell in tiny_cells(world) if cell.axis("torch") == "2.13.0")
    assert owners["torch"] == (good.id,)
    assert owners["host_tool"] == (wheelhouse.HOST,)


def test_a_cell_that_no_index_can_satisfy_is_recorded_as_a_conflict(world):
    house = collect.make(order(world))
    bad = next(cell for cell in tiny_cells(world) if cell.axis("torch") == "2.12.0")
    assert "torch==2.12.0" in house.entries[house.cells[bad.id]].conflict
    matrix = matrixfile.load(world / "matrix.toml").named("tiny")
    with pytest.raises(ResolveError) as caught:
        house.recall(recipe.of(bad, matrix, python=OTHER).request)
    assert caught.value.conflict


def test_a_run_from_the_wheelhouse_needs_no_index_and_installs_what_was_collected(
    world, monkeypatch
):
    asked = order(world, python=HERE, platform="x86_64-manylinux_2_28", select='torch == "2.13.0"')
    collect.make(asked)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_CACHE_DIR", str(world / "empty"))
    tool = installer(house=wheelhouse.load(world / "house"))
    matrix = matrixfile.load(world / "matrix.toml").named("tiny")
    cell = next(cell for cell in tiny_cells(world) if cell.axis("torch") == "2.13.0")
    found = resolve(recipe.of(cell, matrix, python=HERE).request, tool)
    lock_file, home = world / "lock.txt", world / "cell"
    lock_file.write_text(found.lock.text())
    subprocess.run([tool.uv, "venv", "-q", "--python", sys.executable, home], check=True)
    for command in environment.Uv().install(home / "bin/python", lock_file, found.lock, tool):
        assert process.run(command, env=tool.env).ok
    packages = environment.look(home / "bin/python").packages
    assert packages == {pin.name: pin.version for pin in found.lock.pins}
    assert packages["torch"] == "2.13.0"


def test_a_second_time_nothing_is_fetched_again(world):
    collect.make(order(world))
    told = []
    collect.make(order(world), lambda text, done, total: told.append(text))
    assert not [text for text in told if text.startswith("fetch")]


def test_a_damaged_wheel_is_fetched_again(world):
    collect.make(order(world))
    torch = next((world / "house").glob("torch-*.whl"))
    torch.write_bytes(b"half")
    house = collect.make(order(world))
    assert sha256(torch) in [wheel.sha256 for wheel in house.wheels]


def test_what_the_target_has_installed_is_left_out(world):
    installed = {"torch": "2.13.0+cu130", "numpy": "2.2.6", "triton": "3.6.0"}
    chosen = order(world, backend="system", installed=installed, select='torch == "2.13.0"')
    house = collect.make(chosen)
    assert {wheel.file.partition("-")[0] for wheel in house.wheels} == {"pytest", "host_tool"}


def test_a_system_back_end_without_a_list_of_what_is_there_is_refused(world):
    with pytest.raises(ConfigurationError) as caught:
        collect.make(order(world, backend="system"))
    assert "--installed" in caught.value.remedy


def test_a_selection_of_nothing_is_told(world):
    with pytest.raises((NothingRanError, ConfigurationError)):
        collect.make(order(world, select='torch == "1.0"'))


def test_a_platform_that_is_none_is_refused_before_anything_is_done(world):
    with pytest.raises(ConfigurationError, match="amiga"):
        collect.make(order(world, platform="amiga"))
    assert not (world / "house").exists()


def test_a_directory_that_cannot_be_written_is_named(world):
    (world / "house").write_text("a file")
    with pytest.raises(InfrastructureError, match="house"):
        collect.make(order(world))


def test_pinproof_s_own_dependencies_are_those_of_its_pyproject():
    names = {text.partition(">")[0] for text in collect.host_requirements(ROOT / "pyproject.toml")}
    assert {"nox", "uv", "packaging"} <= names


def test_the_script_ends_with_the_exit_code_of_the_error_and_no_traceback(world):
    words = ["--matrix", "tiny", "--matrix-file", world / "matrix.toml", "--out", world / "house"]
    script = [sys.executable, ROOT / "scripts/make_wheelhouse.py", *words, "--platform", "amiga"]
    done = subprocess.run(
        script,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "amiga" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "packages"),
    [
        ("torch==2.11.0+cu130\nJinja2==3.1.6\n", {"torch": "2.11.0+cu130", "jinja2": "3.1.6"}),
        (
            "Package    Version    Editable project location\n---------- ----------\n"
            "torch      2.11.0+cu130\nflash_attn 2.8.3      /src/fa\n",
            {"torch": "2.11.0+cu130", "flash-attn": "2.8.3"},
        ),
        ("torch @ file:///wheels/torch.whl\n", {"torch": "0"}),
        ("-e git+https://host/x@1#egg=my_pkg\n", {"my-pkg": "0"}),
        ("# a comment\n\nnot a line of pip at all\n", {}),
    ],
)
def test_what_pip_prints_of_installed_packages_is_understood(text, packages):
    assert collect.frozen(text) == packages


@given(st.text())
def test_any_list_of_packages_is_read_without_an_error(text):
    assert isinstance(collect.frozen(text), dict)


@pytest.mark.parametrize("text", ["", None])
def test_a_list_that_names_nothing_or_is_not_there_is_refused(tmp_path, text):
    path = tmp_path / "freeze.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match="--installed"):
        collect.read_frozen(path)


def test_this_machine_has_a_platform_name_that_wheels_can_be_chosen_for():
    assert collect.platform_tags(collect.this_platform())
