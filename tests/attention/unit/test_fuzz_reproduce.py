"""Reproduction scripts: the numbers of the judge, and an exit status that tells the truth."""

from __future__ import annotations

import math
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from searched import scaled

from pinproof_cell import candidates
from pinproof_cell.fuzz.groups import Answer, Signature
from pinproof_cell.fuzz.reproduce import inputs as script_inputs
from pinproof_cell.fuzz.reproduce.inline import Inliner
from pinproof_cell.fuzz.reproduce.script import Failure, name_of, script
from pinproof_cell.fuzz.space import SIZES, Space
from pinproof_cell.judge import thresholds
from pinproof_cell.layout import Layout
from pinproof_cell.suite import inputs
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.suite.examine import examine
from pinproof_cell.suite.guard import Guarded

SEARCHED = Path(__file__).with_name("searched.py")


DENSE = FEATURES - {"dropout", "backward", "far"}
DRAWN = [
    case
    for supports in (DENSE, FEATURES - {"dropout", "backward", "alibi", "window"})
    for number in range(40)
    if (case := Space(supports, SIZES["cpu"], 3).case(number))
]

TRAINED = [
    Case(40, 50, 24, heads=4, causal=True, softcap=5.0, alibi=True, dtype="fp16", backward=True),
    Case(33, 70, 16, window=(20, 4), memory="transposed", scale=0.3, backward=True),
    Case(64, 1, 32, 8, 1, kind="peaked", backward=True),
    Case(20, 9, 8, head_dim_v=16, causal=True, dtype="fp32", kind="outlier", backward=True),
    Case(30, 30, 16, 4, 2, layout="varlen", lengths=((30, 30), (4, 9)), sinks=True, backward=True),
    Case(28, 8, 8, softcap=50.0, scale=16.0, dtype="fp16", kind="shifted", backward=True),
]

DROPPED = [
    Case(20, 40, 16, causal=True, dropout=0.3, kind="peaked"),
    Case(9, 12, 16, heads=4, layout="varlen", lengths=((9, 12), (3, 5)), dropout=0.17),
    Case(30, 40, 16, dropout=0.9, dtype="fp16", kind="edge"),
]


@pytest.fixture
def kept_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the hook of this process, which a script sets for its own."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def judged(candidate: str, case: Case, seed: int = 0) -> Answer:
    found = examine(
        Guarded(candidates.get(candidate)),
        case,
        seed=seed,
        device="cpu",
        thresholds=thresholds.load("cpu"),
    )
    return Answer(found.status, tuple(one.document() for one in found.findings))


def failure(
    candidate: str, case: Case, signature: Signature, finding: Any, seed: int = 0
) -> Failure:
    return Failure(candidate, "1.0", "cpu", seed, -math.inf, case, signature, finding)


def ran(path: Path) -> subprocess.CompletedProcess[str]:
    # Isolated: without the folders that would let it import Pinproof.
    return subprocess.run(
        [sys.executable, "-I", str(path)], capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("case", DRAWN, ids=lambda case: case.id)
def test_a_script_draws_the_very_inputs_that_were_judged(case: Case) -> None:
    drawn = inputs.generate(case, 9, "cpu")
    lines = ["import torch"]
    names: dict[str, Any] = {"Layout": Layout}
    exec("\n".join([*lines, *script_inputs.lines(case, 9, "cpu")]), names)
    for name in ("q", "k", "v"):
        wanted = getattr(drawn, name)
        assert torch.equal(names[name], wanted)
        assert names[name].stride() == wanted.stride()
    if drawn.alibi_slopes is not None:
        assert torch.equal(names["slopes"], drawn.alibi_slopes)
    if drawn.sinks is not None:
        assert torch.equal(names["sinks"], drawn.sinks)
    if drawn.layout is not None:
        for name, wanted in vars(drawn.layout).items():
            found = getattr(names["layout"], name)
            assert torch.equal(found, wanted) if torch.is_tensor(wanted) else found == wanted


@pytest.mark.usefixtures("kept_hook")
@pytest.mark.parametrize(
    ("name", "case"),
    [
        *((name, case) for case in DRAWN[::4] for name in ("scaled", "shifted")),
        *(("wrong_gradients", case) for case in TRAINED),
        *(("half_dropped", case) for case in DROPPED),
        ("dropped_gradients", Case(24, 30, 16, softcap=5.0, dropout=0.9, backward=True)),
        ("dropped_gradients", Case(9, 8, 8, dropout=0.5, scale=9.0, dtype="fp16", backward=True)),
    ],
    ids=str,
)
def test_a_script_prints_the_value_that_the_judge_found(
    name: str, case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = f"{SEARCHED}:{name}"
    answer = judged(candidate, case)
    for signature in answer.signatures:
        finding = answer.of(signature)
        path = tmp_path / "script.py"
        path.write_text(script(failure(candidate, case, signature, finding)))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        assert ended.value.code == 1
        printed = re.search(r"is (\S+), the limit is (\S+)", capsys.readouterr().out)
        assert printed is not None
        if finding["value"] is not None:
            assert float(printed[1]) == pytest.approx(finding["value"], rel=1e-3)
            assert float(printed[2]) == pytest.approx(finding["limit"], rel=1e-3)


@pytest.mark.usefixtures("kept_hook")
@pytest.mark.parametrize(
    ("signature", "finding"),
    [
        (Signature("FAIL", "output", "max_z"), {"limit": 25.0}),
        (Signature("DEGRADED", "output", "rms"), {"limit": 1.3}),
        (Signature("FAIL", "lse", "lse_error"), {"limit": 1.0}),
        (Signature("FAIL", "lse", "lse_on_empty_rows"), {}),
        (Signature("FAIL", "output", "non_finite"), {}),
        (Signature("FAIL", "contract", "shape"), {}),
        (Signature("FLAKY", "determinism", "outcomes"), {}),
    ],
    ids=str,
)
def test_a_script_ends_with_0_for_a_kernel_without_the_defect(
    signature: Signature, finding: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "script.py"
    case = Case(40, 30, 24, heads=4, causal=True, softcap=5.0, alibi=True, dtype="fp16")
    told = {"text": "wrong", **finding}
    path.write_text(script(failure(f"{SEARCHED}:right", case, signature, told)))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (Signature("ERROR", "call", "raises"), {"raising": 1, "scaled": 0}),
        (
            Signature("CRASH", "process", "device_lost"),
            {"losing": 1, "busy": 2, "raising": 2, "scaled": 0},
        ),
    ],
    ids=str,
)
def test_a_kernel_that_raises_is_shown_and_one_that_does_not_is_not(
    signature: Signature, expected: dict[str, int], tmp_path: Path
) -> None:
    """Of a device that is lost only such a CUDA error tells as a kernel causes."""
    statuses = {}
    for name in expected:
        path = tmp_path / f"{name}.py"
        told = failure(f"{SEARCHED}:{name}", Case(4, 4), signature, {"text": "bad day"})
        path.write_text(script(told))
        statuses[name] = subprocess.run(
            [sys.executable, str(path)],
            env={"PYTHONPATH": str(Path(candidates.__file__).parents[2])},
            capture_output=True,
            check=False,
        ).returncode
    assert statuses == expected


KNOWN = {
    "no keys kill it": Case(1, 0, 8, heads=1, heads_k=1, batch=1),
    "a last stride is not read": Case(1, 2, 8, heads=1, heads_k=1, batch=1, memory="last-stride"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_script_shows_what_is_known_of_torch_without_pinproof(name: str, tmp_path: Path) -> None:
    case, candidate = KNOWN[name], "torch-cpu-flash"
    if case.seqlen_k:
        answer = judged(candidate, case)
        signature, finding = answer.signatures[0], answer.findings[0]
    else:
        signature, finding = Signature("CRASH", "process", "SIGFPE"), {"text": "killed"}
    path = tmp_path / name_of(candidate, signature, case)
    text = script(failure(candidate, case, signature, finding))
    path.write_text(text)
    assert "pinproof_cell" not in text
    done = ran(path)
    assert done.returncode == 1, done.stderr
    # The same script with a kernel that is not there has shown nothing.
    path.write_text(text.replace("_flash_attention_for_cpu", "_attention_of_nobody"))
    assert ran(path).returncode == 2


def test_a_script_that_fails_by_itself_has_shown_nothing(tmp_path: Path) -> None:
    signature = Signature("FAIL", "output", "max_z")
    path = tmp_path / "script.py"
    told = failure("gone.py:kernel", Case(4, 4), signature, {"text": "wrong", "limit": 25.0})
    path.write_text(script(told))
    assert ran(path).returncode == 2


@pytest.mark.parametrize("name", ["torch-sdpa-flash", "flash-attn-2", "vllm-fa2"])
def test_the_code_of_a_candidate_stands_alone(name: str) -> None:
    text = Inliner().candidate(candidates.get(name), ("forward",))
    assert "pinproof" not in text
    names: dict[str, Any] = {}
    exec(text, names)
    assert callable(names["Candidate"]().forward)


def test_the_providers_of_these_tests_are_as_wrong_as_they_say() -> None:
    call = inputs.generate(Case(4, 4), 0, "cpu")
    out, _ = scaled(call.q, call.k, call.v)
    assert judged(f"{SEARCHED}:right", Case(4, 4)).status == "PASS"
    assert judged(f"{SEARCHED}:scaled", Case(4, 4)).status == "FAIL"
    assert out.shape == call.q.shape
