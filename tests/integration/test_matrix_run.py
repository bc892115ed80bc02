"""`nox -s matrix` on a real cell: torch's CPU attention against our Triton reference."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
from checkouts import CELL, ROOT, Project, row_of, table

STAGES = ("install", "inspect", "correctness", "throughput")


def test_a_safe_cell_ends_with_code_0_and_stands_in_the_table(proven: Project) -> None:
    ended = proven.first[0]
    assert ended.code == 0, ended.text
    assert "SAFE" in row_of(ended, CELL)
    assert "not run: sm_90, sm_120" in ended.out


def test_the_options_and_the_plan_are_printed_before_the_work(proven: Project) -> None:
    out = proven.first[0].out
    assert f"matrix     cpu of {proven.root / 'matrix.toml'}" in out
    assert out.index("machine ") < out.index("plan ") < out.index(f"start {CELL}:install")


def test_results_json_follows_its_schema_and_names_the_proof(proven: Project) -> None:
    schema = json.loads((ROOT / "src/pinproof/data/results.schema.json").read_text("utf-8"))
    document = proven.results()
    jsonschema.validate(document, schema)
    cell = proven.cell(CELL)
    assert cell["verdict"] == "SAFE"
    # The run chose one of three, and the file is what that run said.
    assert document["counts"] == {"SAFE": 1}
    assert document["exit_code"] == 0
    assert [record["stage"] for record in cell["evidence"]] == ["resolve", *STAGES]
    assert cell["throughput"]["baseline"] == "triton-interpreter"


def test_the_markdown_table_is_written_beside_it(proven: Project) -> None:
    text = (proven.store / "results/cpu/results.md").read_text(encoding="utf-8")
    assert f"| {CELL} " in text or f"`{CELL}`" in text


def test_every_stage_leaves_its_log(proven: Project) -> None:
    for stage in STAGES:
        log = proven.store / "logs" / CELL / f"{stage}.log"
        assert f"Session {CELL} was successful" in log.read_text(encoding="utf-8"), stage


def test_the_crash_of_an_empty_key_sequence_is_a_limit_with_its_signal(proven: Project) -> None:
    cell = proven.cell(CELL)
    assert [limit for limit in cell["limits"] if "Sk = 0" in limit and "SIGFPE" in limit]
    assert "do not call with Sk = 0: the process dies of SIGFPE" in proven.first[0].out
    known = {defect["id"]: defect for defect in cell["defects"]}
    assert known["torch-cpu-no-keys"]["shown"]


def test_a_second_run_runs_nothing_and_says_the_same(proven: Project) -> None:
    before = proven.evidence()
    ended = proven.matrix("--matrix", "cpu", "--cell", CELL)
    assert ended.code == 0, ended.text
    assert "5 steps: 5 cached" in ended.out
    assert " start " not in ended.out
    assert table(ended.out) == table(proven.first[0].out)
    assert proven.evidence() == before


def test_the_session_of_a_cell_stands_on_the_same_evidence(proven: Project) -> None:
    before = proven.evidence()
    ended = proven.nox("-s", CELL)
    assert ended.code == 0, ended.text
    assert "SAFE" in row_of(ended, CELL)
    assert proven.evidence() == before


def test_report_is_the_last_run_again_with_its_exit_code(proven: Project) -> None:
    ended = proven.nox("-s", "report", "--", "--matrix", "cpu")
    assert ended.code == 0, ended.text
    assert "SAFE" in row_of(ended, CELL)


def test_explain_shows_the_stages_of_a_cell_with_their_digests(proven: Project) -> None:
    document = json.loads(pinproof(proven, "explain", CELL, "--json").stdout)
    known = {record["stage"]: record for record in document["evidence"]}
    assert set(STAGES) <= set(known)
    assert document["verdict"] == "SAFE"
    for stage in STAGES:
        name = f"{CELL}/{stage}-{known[stage]['digest'][:16]}.json"
        assert name in proven.evidence()


def test_a_lost_environment_is_no_reason_to_run_again(proven: Project) -> None:
    home = proven.root / ".nox" / CELL
    aside = home.with_name("aside")
    home.rename(aside)
    try:
        ended = proven.matrix("--matrix", "cpu", "--cell", CELL)
        assert ended.code == 0
        assert not home.exists()
    finally:
        aside.rename(home)


def test_an_edited_file_in_the_environment_is_noticed_before_it_is_believed(
    proven: Project,
) -> None:
    (module,) = (proven.root / ".nox" / CELL).glob("lib/python*/site-packages/packaging/tags.py")
    whole = module.read_bytes()
    # Not through the hard link: the other name of this file is uv's cache.
    module.unlink()
    module.write_bytes(whole + b"\n# edited\n")
    record = next((proven.store / "evidence" / CELL).glob("inspect-*.json"))
    record.rename(record.with_suffix(".kept"))
    try:
        ended = proven.matrix("--matrix", "cpu", "--cell", CELL, "--until", "inspect")
        assert "packaging/tags.py was edited after its install" in ended.out
        again = proven.matrix("--matrix", "cpu", "--cell", CELL, "--until", "inspect")
        assert f"ok {CELL}:install" in again.out
        assert f"ok {CELL}:inspect" in again.out
    finally:
        record.with_suffix(".kept").rename(record)


@pytest.fixture(scope="module")
def pins(proven: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pins")
    ended = proven.nox("-s", "pins", "--", CELL, "--out", str(out))
    assert ended.code == 0, ended.text
    return out


def test_pins_say_why_and_from_which_evidence(pins: Path, proven: Project) -> None:
    text = (pins / "PINS.md").read_text(encoding="utf-8")
    cell = proven.cell(CELL)
    assert f"`{CELL}` is **SAFE** on cpu" in text
    for record in cell["evidence"]:
        assert record["digest"] in text
    assert str(proven.root) not in text
    assert "://" not in text + (pins / "constraints.txt").read_text(encoding="utf-8")


def test_the_pins_installed_elsewhere_are_the_versions_of_the_cell(
    pins: Path, proven: Project, tmp_path: Path
) -> None:
    uv = proven.python("host").with_name("uv")
    python = tmp_path / "fresh" / "bin" / "python"
    where = proven.environment(**_sources(proven))
    lines = (pins / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = dict(line.split(" ")[0].split("==") for line in lines if not line.startswith("#"))
    version = proven.results()["cells"][0]["axes"]["torch"]
    assert wanted["torch"].startswith(version)
    _run(str(uv), "venv", "--python", str(proven.python(CELL)), str(tmp_path / "fresh"))
    why = (pins / "PINS.md").read_text(encoding="utf-8")
    index = ["--torch-backend", "cpu"] if "PyTorch's own index of cpu builds" in why else []
    words = ["--python", str(python), "--require-hashes", "-r", str(pins / "constraints.txt")]
    _run(str(uv), "pip", "install", *index, *words, env=where)
    frozen = _run(str(uv), "pip", "freeze", "--python", str(python))
    assert dict(line.split("==") for line in frozen.splitlines()) == wanted


def test_a_cell_without_evidence_is_not_pinned(proven: Project, tmp_path: Path) -> None:
    other = next(cell for cell in _cells(proven) if cell != CELL)
    ended = proven.nox("-s", "pins", "--", other, "--out", str(tmp_path))
    assert ended.code == 1
    assert f"{other} is UNVERIFIED, so it is not pinned" in ended.text
    assert not list(tmp_path.iterdir())


def test_the_attention_suite_s_own_tests_pass_in_the_environment_of_the_cell(
    proven: Project, tmp_path: Path
) -> None:
    suite = ROOT / "tests" / "attention" / "unit"
    _borrow(tmp_path, "hypothesis", "sortedcontainers", "pytest-xdist", "execnet")
    text = _run(
        *(str(proven.python(CELL)), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-n", "2", "--dist", "loadfile", str(suite)),
        env=proven.environment(PYTHONPATH=f"{ROOT / 'src'}{os.pathsep}{tmp_path}"),
    )
    assert " passed" in text


def _borrow(into: Path, *names: str) -> None:
    """Link what these tests need and a cell does not have: pure Python, from where we run."""
    for name in names:
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            into.joinpath(top).symlink_to(str(found.locate_file(top)))


def pinproof(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the `pinproof` command as the host environment has it."""
    env = project.environment(PYTHONPATH=str(project.root / "src"), PINPROOF_ROOT=str(project.root))
    return subprocess.run(
        [str(project.python("host")), "-m", "pinproof", *words],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )


def _cells(project: Project) -> list[str]:
    found = json.loads(pinproof(project, "expand", "--matrix", "cpu", "--json").stdout)
    return [cell["id"] for cell in found["cells"]]


def _sources(project: Project) -> dict[str, str]:
    """Return pip's own sources in uv's words: a user of pip has them without doing anything."""
    code = (
        "import json; from pinproof.locks import pipconfig;"
        " print(json.dumps(pipconfig.read().uv_env()))"
    )
    done = subprocess.run(
        [str(project.python("host")), "-c", code],
        env=project.environment(PYTHONPATH=str(project.root / "src")),
        capture_output=True,
        text=True,
        check=True,
    )
    sources: dict[str, str] = json.loads(done.stdout)
    return sources


def _run(*words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
