"""The document of what a run found."""

import importlib.resources
import json
import math

import jsonschema
import judged
import pytest
from judged import cell, check, known, point, record, whole

from pinproof.errors import ConfigurationError, InfrastructureError
from pinproof.evidence.evidence import Outcome
from pinproof.judge.judgement import judge
from pinproof.judge.verdict import Verdict
from pinproof.matrix.matrixfile import Policy
from pinproof.plan.stage import Stage
from pinproof.report import results
from pinproof.report.report import write
from pinproof.report.results import Row, Run

SCHEMA = json.loads(
    importlib.resources.files("pinproof").joinpath("data/results.schema.json").read_text("utf-8")
)


def row(of, evidence, **more):
    return Row(cell=of, judgement=judge(of, evidence, Policy()), evidence=evidence, **more)


def run(*rows, **more):
    values = {
        "matrix": "m",
        "rows": rows,
        "policy": {"require": "all", "uses": ["serving"], "min_throughput": None},
        "checks": ["correctness", "throughput"],
        "machine": judged.CPU,
        "targets": ["cpu", "sm_120"],
        "started": "2026-11-23T18:00:00.000+00:00",
        "finished": "2026-11-23T18:10:00.000+00:00",
        "exit_code": 1,
        "logs": ".pinproof/logs",
    }
    return Run(**{**values, **more})


def every_kind():
    """A run with a cell of many kinds: safe with a limit, crashed, excluded, unavailable."""
    crash = {"uses": ("everything",), "signal": "SIGFPE", "features": ("no-keys",), "defect": "d"}
    defects = (known("d", shown=("128x0-d64",)), known("e", passed=["a"]))
    limited = whole(check("a"), check("128x0-d64", "CRASH", **crash), defects=defects)
    older = judged.inspect("torch-cpu-flash", packages={"torch": "2.13.0", "triton": "3.6.0"})
    wrong = check("b", "FAIL", "max|z| inf > 25", z=math.inf)
    crashed = whole(check("a"), wrong, inspect=older)
    failed = record(
        Stage.BUILD, outcome=Outcome.FAILED, reason="nvcc fatal : no \x1b[31mcompute_120 [B01]"
    )
    warning = {"text": "Race between Write and Read access", "calls": ["a"], "warning": True}
    runs = [{"tool": "racecheck", "status": "CLEAN", "hazards": [warning]}]
    seen = {"tool": "2026.4", "candidates": [{"name": "kernel", "runs": runs}], "incomplete": []}
    sanitized = record(Stage.SANITIZE, {**seen, "device": {"capability": "cpu"}})
    away = record(Stage.CORRECTNESS, outcome=Outcome.UNAVAILABLE, reason="needs sm_120")
    return run(
        row(cell(1, triton="3.7.1"), {**limited, Stage.SANITIZE: sanitized}),
        row(cell(2, triton="3.6.0"), crashed),
        row(cell(3, flash_attn="2.8.3"), {Stage.BUILD: failed}, required=False),
        row(cell(4, excluded="no wheel"), {}),
        row(cell(5, target="sm_120"), {Stage.CORRECTNESS: away}),
    )


def test_the_document_of_every_kind_of_cell_obeys_the_schema_and_is_strict_json():
    document = results.document(every_kind())
    jsonschema.validate(document, SCHEMA)
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document


def test_the_schema_is_a_schema_and_knows_every_verdict_stage_and_outcome():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    of_cell = SCHEMA["properties"]["cells"]["items"]["properties"]
    of_record = of_cell["evidence"]["items"]["properties"]
    assert of_cell["verdict"]["enum"] == list(Verdict)
    assert SCHEMA["properties"]["counts"]["propertyNames"]["enum"] == list(Verdict)
    assert of_record["stage"]["enum"] == list(Stage)
    assert of_record["outcome"]["enum"] == list(Outcome)


@pytest.mark.parametrize("wrong", [{"schema": 2}, {"exit_code": 77}, {"surprise": 1}])
def test_the_schema_refuses_what_the_document_does_not_promise(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**results.document(every_kind()), **wrong}, SCHEMA)


def test_a_cell_carries_its_axes_verdict_limits_numbers_and_the_digests_of_its_evidence():
    evidence = whole(points=(point("torch-cpu-flash", 1.23456789),))
    shown = results.document(run(row(cell(triton="3.7.1"), evidence)))["cells"][0]
    assert shown["axes"] == {"torch": "2.13.0", "triton": "3.7.1"}
    assert shown["verdict"] == "SAFE"
    assert shown["throughput"]["ratio"] == 1.23457
    assert [entry["digest"] for entry in shown["evidence"]] == [
        each.digest for each in evidence.values()
    ]


def test_the_document_says_where_candidates_ran_and_where_none_did():
    h100 = whole(machine=judged.H100)
    document = results.document(
        run(row(cell(target="sm_90"), h100), targets=["cpu", "sm_90", "sm_120"])
    )
    assert document["run_on"] == ["NVIDIA H100, sm_90, driver 580.1"]
    assert document["not_run"] == ["cpu", "sm_120"]
    assert document["counts"] == {"SAFE": 1}


def test_an_infinite_z_is_written_as_a_word_because_json_has_none():
    assert results.document(every_kind())["cells"][1]["worst_z"] == "inf"


def test_escapes_from_a_log_do_not_reach_the_document():
    reason = results.document(every_kind())["cells"][2]["reason"]
    assert reason == "build: nvcc fatal : no compute_120 [B01]"


def test_what_is_written_is_read_again(tmp_path):
    document = results.document(every_kind())
    data, table = write(document, tmp_path / "new" / "place")
    assert results.read(data) == document
    assert table.read_text().startswith("| cell ")
    assert sorted(path.name for path in data.parent.iterdir()) == ["results.json", "results.md"]


@pytest.mark.parametrize("text", [None, "", "{}", '{"schema": 2}', "[1]"])
def test_reading_something_else_is_a_clear_error(tmp_path, text):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match="no results document"):
        results.read(path)


def test_a_disk_that_refuses_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InfrastructureError, match="cannot write"):
        write(results.document(every_kind()), tmp_path / "file")
