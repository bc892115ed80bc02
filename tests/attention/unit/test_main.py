"""The command line of the cell, as the host calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pinproof_cell.__main__ as cli

HERE = Path(__file__).parent
SOURCE = Path(cli.__file__).parents[1]
REQUEST = {"schema": 1, "cell": "cpu-3f9a1c", "target": "cpu", "axes": {"torch": "2.13.0"}}


def call(*words, before: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the cell's command line, with the folder `before` first on the path of modules."""
    path = os.pathsep.join(str(part) for part in (before, SOURCE) if part)
    return subprocess.run(
        [sys.executable, "-m", "pinproof_cell", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
        check=False,
    )


@pytest.fixture
def request_file(tmp_path):
    path = tmp_path / "request.json"
    path.write_text(json.dumps(REQUEST), encoding="utf-8")
    return path


def test_help_names_every_stage_and_shows_an_example():
    done = call("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("inspect", "correctness", "throughput"))
    assert "examples:" in done.stdout


def test_a_wrong_request_ends_with_2_and_one_line(tmp_path):
    (tmp_path / "request.json").write_text('{"schema": 1, "cel": 1}', encoding="utf-8")
    words = ("--request", tmp_path / "request.json", "--json", tmp_path / "out.json")
    done = call("inspect", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown key 'cel'; did you mean 'cell'?")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


def test_a_result_folder_that_is_not_there_ends_with_2_before_any_work(tmp_path, request_file):
    done = call("inspect", "--request", request_file, "--json", tmp_path / "none" / "out.json")
    assert done.returncode == 2
    assert "no folder" in done.stderr


@pytest.mark.parametrize(
    ("breakage", "error"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("raise ImportError('libtorch_cuda.so: no such file')", "libtorch_cuda.so: no such file"),
    ],
)
def test_inspect_writes_its_result_where_torch_is_broken(tmp_path, request_file, breakage, error):
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text(breakage, encoding="utf-8")
    out = tmp_path / "out.json"
    done = call("inspect", "--request", request_file, "--json", out, before=tmp_path / "broken")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    torch = next(entry for entry in found["imports"] if entry["module"] == "torch")
    assert not torch["ok"]
    assert error in torch["error"]
    assert [candidate["available"] for candidate in found["candidates"]] == [False]
    assert found["device"]["kind"] == "cpu"


def test_numbers_that_json_cannot_say_are_written_as_null(tmp_path):
    out = tmp_path / "out.json"
    cli.write(out, {"worst": [float("inf"), float("nan"), 1.5]})
    assert json.loads(out.read_text(encoding="utf-8")) == {"worst": [None, None, 1.5]}


def test_a_result_that_cannot_be_written_leaves_the_old_one_and_no_litter(tmp_path):
    out = tmp_path / "out.json"
    cli.write(out, {"run": 1})
    with pytest.raises(TypeError):
        cli.write(out, {"run": object()})
    assert json.loads(out.read_text(encoding="utf-8")) == {"run": 1}
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("where", "told"),
    [("/proc/x.json", "cannot write to /proc"), (".", "is a folder")],
)
def test_a_result_that_could_not_be_written_is_refused_before_any_work(where, told):
    done = call("check", "--provider", f"{HERE / 'naughty.py'}:good", "--json", where)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--provider", f"{HERE / 'naughty.py'}:good"),
        ("check", "--candidate", "torch-cpu-flash"),
        ("calibrate", "--runs", "500"),
        ("mutants",),
    ],
    ids=["a provider", "candidates by name", "calibrate", "mutants"],
)
def test_ctrl_c_is_one_line_and_ends_the_children(tmp_path, words):
    process = subprocess.Popen(
        [sys.executable, "-m", "pinproof_cell", *words, "--json", tmp_path / "out.json"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        limit = time.monotonic() + 60
        while not (family := children(process.pid)) and time.monotonic() < limit:
            time.sleep(0.1)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, told) == (130, "interrupted\n")
    assert family
    assert not [each for each in family if Path(f"/proc/{each}").exists()]
    assert not (tmp_path / "out.json").exists()


def children(pid: int) -> list[int]:
    """Return the ids of the children that any thread of a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text().split()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--runs", "0"), "'0' is not a whole number from 1"),
        (("--runs", "2.5"), "'2.5' is not a whole number from 1"),
        (("--processes", "no"), "'no' is not a whole number from 1"),
        (("--seconds", "-1"), "'-1' is not a number of seconds"),
        (("--seconds", "nan"), "'nan' is not a number of seconds"),
    ],
)
def test_a_calibration_of_nothing_is_wrong_words(words, told, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["calibrate", *words, "--json", str(tmp_path / "out.json")])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_no_seconds_are_a_calibration_that_only_tells():
    assert cli.parser().parse_args(["calibrate", "--seconds", "0", "--json", "x"]).seconds == 0
