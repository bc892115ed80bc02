"""The documentation says what the code does: generated parts, commands, links, codes, verdicts."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pinproof import cli
from pinproof.errors import ExitCode
from pinproof.judge.verdict import Verdict
from pinproof.matrix import cell, matrixfile
from pinproof.plan.stage import Stage
from pinproof_cell import candidates

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "update_docs.py"
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
WRITTEN = [path for path in PAGES if "results" not in path.relative_to(ROOT).parts]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


update_docs = _script()


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _fenced(text: str) -> list[str]:
    blocks = re.findall(r"^```(?:\w+)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def _commands() -> Iterator[tuple[str, str]]:
    for path in WRITTEN:
        for line in _fenced(path.read_text(encoding="utf-8")):
            if re.match(r"(pip install nox && )?(nox|pinproof) ", line):
                yield _name(path), line


COMMANDS = list(_commands())


@pytest.mark.parametrize("path", update_docs.documents(), ids=_name)
def test_generated_parts_are_those_of_the_code_and_the_results(path: Path) -> None:
    assert update_docs.documents()[path] == path.read_text(encoding="utf-8"), (
        "run: python scripts/update_docs.py"
    )


def test_a_page_that_was_edited_by_hand_is_named_as_stale(tmp_path: Path) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "results", tmp_path / "results")
    assert update_docs.stale(tmp_path) == []
    rules = tmp_path / "docs" / "reference" / "rules.md"
    rules.write_text(rules.read_text(encoding="utf-8").replace("12.8", "12.7"), encoding="utf-8")
    assert update_docs.stale(tmp_path) == [rules]


def test_a_failing_check_that_no_defect_names_stands_by_its_id_in_the_findings() -> None:
    seen = {"PASS": "a", "UNSUPPORTED": "b", "FAIL": "c", "CRASH": "d"}
    whole = {"case": {"seqlen_q": 1, "seqlen_k": 1}, "findings": [], "signal": None}
    whole |= {"features": [], "kind": "case"}
    cases = [{"id": name, "status": status, **whole} for status, name in seen.items()]
    document = {"version": "1", "device": {"name": "X", "capability": "sm_90"}, "cases": cases}
    row = update_docs._judged(candidates.get("triton-ref"), document)
    assert row == ("triton-ref 1", "X", "1", "1", "1 FAIL, 1 CRASH", "`c`, `d`")


def test_the_readme_has_a_placeholder_where_no_result_is_committed(tmp_path: Path) -> None:
    assert "Not yet generated" in update_docs.run_table(tmp_path)


def test_check_ends_with_0_where_nothing_is_stale() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_first_two_nox_lines_of_the_readme_are_the_main_job_and_the_tests() -> None:
    lines = _fenced((ROOT / "README.md").read_text(encoding="utf-8"))
    found = [line for line in lines if "nox" in line]
    assert found[:2] == ["pip install nox && nox -s matrix", "nox -s tests"]


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found.read_text(encoding="utf-8")), target


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "docs/reference/exit-codes.md"])
def test_every_exit_code_is_explained(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert told == set(map(int, ExitCode))


@pytest.mark.parametrize("page", ["README.md", "docs/reference/results.md"])
def test_every_verdict_is_explained(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([A-Z-]+)` \|", text, re.MULTILINE))
    assert told >= set(map(str, Verdict))


@pytest.mark.parametrize("path", WRITTEN, ids=_name)
def test_every_cell_that_a_page_names_is_one_of_the_shipped_matrices(path: Path) -> None:
    file = matrixfile.load(ROOT / "matrix.toml")
    known = {each.id for matrix in file.matrices for each in cell.expand(matrix)}
    text = path.read_text(encoding="utf-8")
    if path.name != "cli.md":  # the others quote runs, whose cells may be gone
        text = update_docs.BLOCK.sub("", text)
    assert set(re.findall(r"\b(?:cpu|sm\d+)-[0-9a-f]{6}\b", text)) <= known


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_option_of_a_documented_command_exists(page: str, command: str) -> None:
    verbs = cli.command.verbs
    match = re.search(r"\b(?:pinproof|nox -s) (\S+)", command)
    verb = verbs.get(match[1], verbs["run"]) if match else verbs["run"]
    known = {flag for each in verb._actions for flag in each.option_strings}
    assert {word for word in command.split() if re.match(r"--\w", word)} <= known


#: What the snippets of the guides are put into where they are not whole.
FRAME = """
format = 1
targets = { cpu = {}, sm_90 = {} }
[[matrix]]
name = "frame"
target = "sm_90"
"""
AXES = """
[matrix.axes]
torch = ["2.10.0", "2.11.0"]
triton = ["3.6.0", "3.9.0"]
vllm = ["none", "0.24.0"]
"""


@pytest.mark.parametrize("page", ["add-a-matrix.md", "nightly-ci.md"])
def test_the_matrices_of_the_guides_are_sound(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    for number, snippet in enumerate(_toml(text)):
        whole = snippet
        if "[[matrix]]" in snippet and "format" not in snippet:
            whole = FRAME.partition("[[matrix]]")[0] + snippet
        elif "format" not in snippet:
            first = snippet if not snippet.startswith("[[") else ""
            axes = "" if "[matrix.axes]" in snippet else AXES
            whole = FRAME + first + axes + (snippet if not first else "")
        path = tmp_path / f"{number}.toml"
        path.write_text(whole, encoding="utf-8")
        assert [each for matrix in matrixfile.load(path).matrices for each in cell.expand(matrix)]


def _toml(text: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_rules_of_the_guide_are_sound(tmp_path: Path) -> None:
    from pinproof.matrix import rules

    text = (ROOT / "docs" / "how-to" / "add-a-rule.md").read_text(encoding="utf-8")
    path = tmp_path / "rules.toml"
    path.write_text("\n".join(_toml(text)), "utf-8")
    assert len(rules.load(path).excluding) == len(tomllib.loads(path.read_text("utf-8"))["rule"])


def test_the_matrix_page_names_every_stage() -> None:
    text = (ROOT / "docs" / "reference" / "matrix.md").read_text(encoding="utf-8")
    assert all(f"| `{stage}` |" in text for stage in Stage)
