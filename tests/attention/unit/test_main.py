"""The command line of the cell, as the host calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pinproof_cell.__main__ as cli

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
