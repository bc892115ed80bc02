"""Tests of the `pinproof` command, as a person or a script calls it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import empty_cells
import pytest

from pinproof import __version__, cli
from pinproof.run import process


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Return a function that calls the command in a project of two empty cells."""
    empty_cells.write(tmp_path)
    monkeypatch.setenv("PINPROOF_ROOT", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        captured = capsys.readouterr()
        return int(str(ended.value.code)), captured.out, captured.err

    return run


def test_expand_lists_every_cell(call: Any) -> None:
    code, out, _ = call("expand", "--json")
    assert code == 0
    assert [cell["matrix"] for cell in json.loads(out)["cells"]] == ["empty"] * 2
    _, text, _ = call("expand", "--select", f"python == '{empty_cells.PYTHON}.1'")
    assert len(text.splitlines()) == 1


def test_plan_says_what_a_run_would_do_and_does_not_do_it(call: Any, tmp_path: Path) -> None:
    code, out, err = call("plan", "--json")
    assert code == 0
    assert len(json.loads(out)["steps"]) == 3
    assert "machine" in err
    assert not (tmp_path / ".pinproof").exists()


def test_run_then_report_then_explain_agree(call: Any) -> None:
    code, ran, _ = call("run", "--offline", "--json")
    assert code == 3
    code, reported, _ = call("report", "--json")
    assert (code, json.loads(reported)) == (3, json.loads(ran))
    cell = json.loads(ran)["cells"][0]["id"]
    code, out, _ = call("explain", cell, "--json")
    assert code == 0
    (install,) = [each for each in json.loads(out)["evidence"] if each["stage"] == "install"]
    assert Path(install["log"]).is_file()


def test_a_report_repeats_the_run_of_one_cell_with_its_exit_code_and_writes_nothing(
    call: Any, tmp_path: Path
) -> None:
    both = [cell["id"] for cell in json.loads(call("run", "--offline", "--json")[1])["cells"]]
    ended, ran, _ = call("run", "--offline", "--cell", both[1], "--json")
    (tmp_path / ".pinproof/results/empty/results.md").unlink()
    code, reported, _ = call("report", "--json")
    assert (code, json.loads(reported)) == (ended, json.loads(ran))
    assert [cell["id"] for cell in json.loads(reported)["cells"]] == [both[1]]
    assert "written" not in call("report")[1]
    assert not (tmp_path / ".pinproof/results/empty/results.md").exists()


def test_the_table_and_the_files_end_a_run(call: Any, tmp_path: Path) -> None:
    _, out, _ = call("run", "--offline")
    assert "UNVERIFIED" in out
    assert str(tmp_path / ".pinproof/results/empty/results.json") in out
    _, markdown, _ = call("report", "--markdown")
    assert markdown.count("UNVERIFIED") >= 2


def test_a_table_that_cannot_be_kept_is_shown_all_the_same(call: Any, tmp_path: Path) -> None:
    (tmp_path / ".pinproof").mkdir()
    (tmp_path / ".pinproof" / "results").write_text("in the way", encoding="utf-8")
    code, out, err = call("run", "--offline")
    assert code == 4
    assert "UNVERIFIED" in out
    assert "cannot write" in err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("run", "--matrix", "emty"), 2, "Did you mean 'empty'?"),
        (("run", "--cell", "cpu-zzzzzz"), 2, "there is no cell"),
        (("run", "--until", "end"), 2, "there is no stage 'end'"),
        (("plan", "--stage", "build"), 2, "Did you mean '--until'?"),
        (("report", "--matrix", "empty"), 2, "run `nox -s matrix -- --matrix empty` first"),
        (("audit", "/nonexistent"), 2, "/nonexistent does not exist"),
        (("expand", "--select", "flash-attn == 'none'"), 2, "write flash_attn"),
        (("expand", "--select", "(" * 300 + "torch" + ")" * 300), 2, "((((...' is not an"),
        (("lock", "--matrix", "empty", "--python", "3.x"), 2, "--python: '3.x' is not a version."),
        (("run", "--until", "sanitize"), 2, "add --sanitize"),
        (("run", "--select", ""), 2, "run: --select is empty"),
        (("run", "--store="), 2, "run: --store is empty"),
        (("cache", "prune", "--days", "-1"), 2, "--days -1 must be 0 or more"),
        (("run", "--jobs", "0"), 2, "1 or more"),
        (("run", "--jobs", "many"), 2, "--jobs"),
        (("run", "--backend", "conda"), 2, "names no conda environment"),
        (("conda", "lok"), 2, "Did you mean 'lock'?"),
        (("conda", "lock"), 2, "no specification in envs/"),
        (("conda", "check", "cuda-13.0"), 2, "write its specification, envs/cuda-13.0.yml"),
        (("conda", "install", "cuda-13.0"), 2, "--into DIR"),
        (("lock", "--env", "cuda-13.0"), 2, "write its specification, envs/cuda-13.0.yml"),
        (("run", "--wheelhouse", "."), 2, "is no wheelhouse"),
        (("run", "--no-such-option"), 2, "--no-such-option"),
        (("run", "--mtrix", "empty"), 2, "Did you mean '--matrix'?"),
        (("run", "--matrix"), 2, "pinproof run --help"),
        (("report", "empty"), 2, "takes no argument 'empty'"),
        (("explain",), 2, "CELL"),
        (("--no-such-option",), 2, "next step"),
        (("rnu",), 2, "Did you mean 'run'?"),
        (("report",), 2, "run `nox -s matrix` first"),
        (("explain", "../../etc"), 2, "there is no cell"),
        (("expand", "--matrix-file", "nowhere.toml"), 2, "nowhere.toml"),
        (("expand", "--select", "__import__('os')"), 2, "next step"),
    ],
)
def test_a_mistake_ends_with_a_message_and_the_next_step(
    call: Any, words: tuple[str, ...], code: int, told: str
) -> None:
    ended, out, err = call(*words)
    assert ended == code, err
    assert told in err
    assert "pinproof: pinproof" not in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("verb", list(cli.command.verbs))
def test_the_help_of_every_verb_shows_an_example_that_the_verb_takes(call: Any, verb: str) -> None:
    code, out, _ = call(verb, "--help")
    assert code == 0
    examples = [shlex.split(line) for line in out.split("examples:\n")[1].splitlines()]
    assert examples
    for name, first, *words in examples:
        assert (name, first) == ("pinproof", verb)
        cli.command.verbs[verb].parse_args(words[: words.index(">") if ">" in words else None])


def test_without_a_word_the_command_shows_its_help(call: Any) -> None:
    code, out, _ = call()
    assert code == 2
    assert "explain" in out


def test_the_schema_for_editors_is_the_one_that_ships(call: Any) -> None:
    _, out, _ = call("schema")
    shipped = Path(cli.__file__).with_name("data") / "matrix.schema.json"
    assert json.loads(out) == json.loads(shipped.read_text(encoding="utf-8"))


@pytest.mark.parametrize("reader", ["| true", "| head -c 1", ">&-"])
@pytest.mark.parametrize(
    ("words", "code"),
    [("schema", 0), ("expand", 0), ("run --help", 0), ("run --offline", 3), ("expand --json", 0)],
)
def test_a_reader_that_went_away_gets_no_traceback_and_changes_no_exit_code(
    tmp_path: Path, words: str, code: int, reader: str
) -> None:
    empty_cells.write(tmp_path)
    source = str(Path(cli.__file__).parents[1])
    piped = f"{sys.executable} -m pinproof {words} {reader}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", piped],
        env=process.inherited(PYTHONPATH=source, PINPROOF_ROOT=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == code


def test_an_output_that_cannot_be_written_is_a_failure_of_the_machine(tmp_path: Path) -> None:
    source = str(Path(cli.__file__).parents[1])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pinproof", "schema"],
            env=process.inherited(PYTHONPATH=source, PINPROOF_ROOT=str(tmp_path)),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == "pinproof: cannot write the output: No space left on device\n"


def test_the_command_tells_its_version(call: Any) -> None:
    assert call("--version")[:2] == (0, f"pinproof {__version__}\n")


def test_a_path_is_told_without_the_way_there(call: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    _, _, err = call("plan", "--json", "--store", str(tmp_path / "sub" / ".." / "kept"))
    assert f"evidence   {tmp_path / 'kept'}\n" in err


def test_defects_lists_what_is_known_and_what_not_to_call(call: Any) -> None:
    code, out, _ = call("defects")
    assert code == 0
    assert "torch-cpu-no-keys" in out
    assert "do not call  with Sk = 0" in out
    _, text, _ = call("defects", "--json")
    found = json.loads(text, parse_constant=pytest.fail)
    assert {entry["upstream"] for entry in found["defects"]} >= {"pytorch#187506"}


def test_json_never_writes_over_a_log_nor_any_other_file(call: Any, tmp_path: Path) -> None:
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    for log in logs:
        log.write_text("ImportError: no such thing\n", encoding="utf-8")
    first, second = map(str, logs)
    for words in (("--json", first, second), (first, second, "--json", second)):
        code, _, err = call("triage", *words)
        assert (code, "name a new file" in err) == (2, True)
    other = tmp_path / "other.json"
    other.write_text("[1]", encoding="utf-8")
    assert call("audit", str(tmp_path), "--arch", "sm_120", "--json", str(other))[0] == 2
    assert call("triage", first, "--json", str(tmp_path / "none" / "out.json"))[0] == 2
    assert not (tmp_path / "none").exists()
    assert [log.read_text(encoding="utf-8") for log in logs] == ["ImportError: no such thing\n"] * 2
    assert other.read_text(encoding="utf-8") == "[1]"


def test_json_goes_to_a_file_again_and_again_or_alone_to_standard_output(
    call: Any, tmp_path: Path
) -> None:
    log, file = tmp_path / "a.log", tmp_path / "out.json"
    log.write_text("ImportError: no such thing\n", encoding="utf-8")
    for _ in range(2):
        code, out, _ = call("triage", str(log), "--json", str(file))
        assert code == 1
        assert "ImportError" in out
    code, out, err = call("triage", str(log), "--json", "-")
    assert json.loads(out) == json.loads(file.read_text(encoding="utf-8"))
    assert "ImportError" in err
