"""Known defects: the file, its loader, and what finished checks say of them."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof_cell import candidates
from pinproof_cell.judge import defects
from pinproof_cell.judge.conditions import Condition, Outcome
from pinproof_cell.judge.defects import Defect, Subject
from pinproof_cell.suite import checks as suites
from pinproof_cell.suite.cases import FEATURES, Case
from pinproof_cell.suite.identities import Identity

CPU = Subject(candidate="torch-cpu-flash", version="2.13.0", target="cpu", lse_on_empty_rows=0.0)
ENTRY = {
    "id": "a-defect",
    "title": "it is wrong",
    "upstream": "somewhere#1",
    "since": "1.0",
    "sees": "wrong numbers",
    "avoid": "wide heads",
    "candidates": {"kernel": ">= 1.0, < 2"},
    "targets": ["sm_120"],
    "case": {"features": ["causal"], "head_dim": "> 128", "dtype": ["bf16"]},
    "shows": [{"status": ["FAIL"], "check": "output", "statistic": "max_z"}],
    "smallest": {"seqlen_q": 2, "seqlen_k": 2, "head_dim": 256, "causal": True},
}
KERNEL = Subject(candidate="kernel", version="1.5", target="sm_120", lse_on_empty_rows=-math.inf)


def check(status: str = "FAIL", **more: Any) -> Outcome:
    """Return what a check of the entry's smallest case came to."""
    findings = [{"check": "output", "statistic": "max_z"}] if status == "FAIL" else []
    return Outcome.read(document(**{"status": status, "findings": findings, **more}))


def document(**more: Any) -> dict[str, Any]:
    """Return a finished check as the document of the suite holds it."""
    plain = {"id": "x", "kind": "case", "features": [], "findings": [], "signal": None}
    return {**plain, "case": ENTRY["smallest"], **more}


def known_as(name: str) -> Defect:
    return next(known for known in defects.load() if known.id == name)


@pytest.mark.parametrize("known", defects.load(), ids=lambda known: known.id)
def test_every_shipped_defect_can_be_found_by_its_candidate_condition_and_symptom(
    known: Defect,
) -> None:
    name, versions = next(iter(known.candidates.items()))
    some = next(text for text in ("99", "2.13.0", "1.0", "0") if versions.holds(text))
    symptom = known.symptoms[0]
    lse = -math.inf if symptom.lse_on_empty_rows is None else symptom.lse_on_empty_rows
    target = known.targets[0] if known.targets else "cpu"
    of = Subject(candidate=name, version=some, target=target, lse_on_empty_rows=lse)
    shown = replace(
        next(outcome for outcome in known.examples() if known.meets(outcome)),
        status=symptom.status[0],
        signal=symptom.signal,
        findings=[{"check": symptom.check, "statistic": symptom.statistic}],
    )
    assert defects.name_of(of, shown) == known.id


@pytest.mark.parametrize("known", defects.load(), ids=lambda known: known.id)
def test_the_full_suite_asks_where_a_shipped_defect_must_show(known: Defect) -> None:
    """So that a kernel that has it does not pass, and one that is cured is told."""
    sees_wrong = {"candidate": "", "version": "99", "lse_on_empty_rows": math.nan}
    for name, versions in known.candidates.items():
        kernel = candidates.get(name)
        asked = suites.suite("full", "cuda" if kernel.needs_cuda else "cpu")
        text = next(text for text in ("99", "2.13.0", "1.0", "0") if versions.holds(text))
        target = known.targets[0] if known.targets else "cpu"
        of = Subject(**{**sees_wrong, "candidate": name, "version": text, "target": target})
        passed = (
            Outcome.read(document(**{"id": check.id, "status": "PASS", **suites.facts(check)}))
            for check in asked
            if check.features <= kernel.supports
        )
        if any(known.missed(of, outcome) for outcome in passed):
            return
    pytest.fail(f"no check must show {known.id}")


@pytest.mark.parametrize("known", defects.load(), ids=lambda known: known.id)
def test_every_shipped_defect_says_what_to_avoid_and_where_it_is_followed(known: Defect) -> None:
    assert re.fullmatch(r"[\w-]+#\d+|not reported.*", known.upstream)
    assert "http" not in defects.DATA.read_text(encoding="utf-8")
    assert not known.avoid.startswith("do not")
    assert not any(text.endswith(".") for text in (known.title, known.sees, known.avoid))


@pytest.mark.parametrize(
    "name",
    ["torch-cpu-no-keys", "torch-cpu-last-stride", "torch-cpu-empty-lse",
     "torch-cpu-grouped-backward"],
)  # fmt: skip
def test_torch_on_this_machine_shows_its_known_defects_at_their_smallest_case(name: str) -> None:
    """Strict: where a torch no longer shows one, this fails, and its versions must be narrowed.

    A torch that is said to be cured must be.
    """
    known = known_as(name)
    code = f"""
import json, sys
from pinproof_cell import candidates
from pinproof_cell.judge import defects, thresholds
from pinproof_cell.suite.examine import examine
known = next(known for known in defects.load() if known.id == {name!r})
kernel = candidates.get("torch-cpu-flash")
limits = thresholds.load("cpu")
print(examine(kernel, known.smallest, seed=0, device="cpu", thresholds=limits).status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    signal = "SIGFPE" if done.returncode == -8 else None
    status = done.stdout.strip() or "CRASH"
    found = Outcome(case=known.smallest, status=status, signal=signal, findings=())
    here = replace(CPU, version=version("torch"))
    if known.concerns(here):
        assert defects.name_of(here, found) == name, done.stderr
    else:
        assert status == "PASS", done.stderr


def test_a_failure_is_named_only_by_a_defect_of_that_candidate_version_and_target() -> None:
    known = defects.parse(ENTRY)
    assert known.shown(KERNEL, check())
    for field, value in (("candidate", "other"), ("version", "2.0"), ("target", "sm_90")):
        other = Subject(**{**asdict(KERNEL), field: value})
        assert not known.shown(other, check()), field
        assert not known.missed(other, check("PASS")), field


@pytest.mark.parametrize(
    "change",
    [{"head_dim": 128}, {"causal": False}, {"dtype": "fp16"}],
    ids=["outside the range", "without the feature", "not of the list"],
)
def test_a_failure_of_another_call_is_not_named(change: dict[str, Any]) -> None:
    other = check(case={**ENTRY["smallest"], **change})
    assert not defects.parse(ENTRY).shown(KERNEL, other)


def test_a_failure_of_another_kind_is_not_named() -> None:
    known = defects.parse(ENTRY)
    assert not known.shown(KERNEL, check("CRASH"))
    assert not known.shown(KERNEL, check(findings=[{"check": "lse", "statistic": "max_z"}]))
    assert not known.shown(KERNEL, check(findings=[]))


def test_a_failure_is_not_named_where_a_finding_is_not_of_the_defect() -> None:
    """One known finding excuses no other; several symptoms of one defect together do."""
    known = {"check": "output", "statistic": "max_z"}
    other = {"check": "lse", "statistic": "lse_error"}
    both = check(findings=[known, other])
    assert defects.parse(ENTRY).shown(KERNEL, check(findings=[known, known]))
    assert not defects.parse(ENTRY).shown(KERNEL, both)
    shows = [*ENTRY["shows"], {"status": ["FAIL"], "check": "lse"}]
    assert defects.parse({**ENTRY, "shows": shows}).shown(KERNEL, both)
    crashes = [*ENTRY["shows"], {"status": ["CRASH"], "check": "lse"}]
    assert not defects.parse({**ENTRY, "shows": crashes}).shown(KERNEL, both)


def test_a_pass_says_that_a_defect_is_gone_and_an_unsupported_case_says_nothing() -> None:
    known = defects.parse(ENTRY)
    assert known.missed(KERNEL, check("PASS"))
    assert not known.missed(KERNEL, check("UNSUPPORTED"))
    assert not known.missed(KERNEL, check("PASS", kind="repeats"))
    assert not known.missed(KERNEL, check("PASS", case={"seqlen_q": 1, "seqlen_k": 1}))


def test_a_defect_that_need_not_show_everywhere_is_gone_only_where_it_must() -> None:
    known = defects.parse({**ENTRY, "surely": {"seqlen_q": ">= 128"}})
    long = {**ENTRY["smallest"], "seqlen_q": 128, "seqlen_k": 128}
    assert known.shown(KERNEL, check())
    assert not known.missed(KERNEL, check("PASS"))
    assert known.missed(KERNEL, check("PASS", case=long))


def test_a_convention_that_a_candidate_declares_is_a_defect_of_the_checks_it_passes() -> None:
    rows = check("PASS", case={"seqlen_q": 2, "seqlen_k": 1, "causal": True})
    assert defects.name_of(CPU, rows) == "torch-cpu-empty-lse"
    cured = Subject(**{**asdict(CPU), "lse_on_empty_rows": -math.inf})
    assert defects.name_of(cured, rows) is None
    assert known_as("torch-cpu-empty-lse").missed(cured, rows)


def test_the_account_of_a_run_tells_what_shows_from_what_is_gone_and_leaves_the_rest_out() -> None:
    tiny = {"seqlen_q": 8, "seqlen_k": 8}
    none, strided = {**tiny, "seqlen_k": 0}, {**tiny, "memory": "last-stride"}
    checks = [
        document(id="none", status="CRASH", signal="SIGFPE", case=none),
        document(id="strided", status="PASS", case=strided),
        document(id="plain", status="PASS", case=tiny),
    ]
    found = {entry["id"]: entry for entry in defects.account(CPU, checks)}
    assert found.keys() == {"torch-cpu-no-keys", "torch-cpu-last-stride"}
    assert found["torch-cpu-no-keys"]["cases"] == ["none"]
    assert found["torch-cpu-last-stride"]["cases"] == []
    assert found["torch-cpu-last-stride"]["passed"] == ["strided"]
    assert json.loads(json.dumps(list(found.values()))) == list(found.values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"title": ""}, "title"),
        ({"versions": ">= 1"}, "versions"),
        ({"candidates": {"kernel": "1.0"}}, "'1.0' is no comparison"),
        ({"case": {"features": ["fast"]}}, "fast"),
        ({"case": {"depth": "> 3"}}, "'depth'"),
        ({"shows": [{"status": ["UNSUPPORTED"]}]}, "UNSUPPORTED"),
        ({"shows": [{"status": ["FAIL"], "sign": 1}]}, "sign"),
        ({"smallest": {"seqlen_q": 1, "seqlen_k": 1}}, "smallest case does not meet"),
        ({"smallest": {"seqlen_q": 1}}, "seqlen_k"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_wrong(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"a-defect: .*{re.escape(told)}"):
        defects.parse({**ENTRY, **change})


def test_two_defects_of_one_id_are_refused(tmp_path: Path) -> None:
    text = defects.DATA.read_text(encoding="utf-8")
    first = "[[defect]]" + text.split("[[defect]]")[1]
    path = tmp_path / "defects.toml"
    path.write_text(first + first, encoding="utf-8")
    with pytest.raises(ValueError, match="two defects"):
        defects.load(path)


def test_of_several_conditions_one_is_enough() -> None:
    two = [ENTRY["case"], {"features": ["window"]}]
    known = defects.parse({**ENTRY, "case": two})
    assert known.shown(KERNEL, check())
    assert known.shown(KERNEL, check(case={"seqlen_q": 2, "seqlen_k": 2, "window": [1, 1]}))
    assert not known.shown(KERNEL, check(case={"seqlen_q": 2, "seqlen_k": 2}))


def test_a_defect_of_a_call_that_an_identity_makes_is_seen_and_missed_in_that_identity() -> None:
    here = {"identity": ["P1-it-holds"]}
    known = defects.parse({**ENTRY, "case": [ENTRY["case"], here], "surely": here})
    plain = {"seqlen_q": 2, "seqlen_k": 2}
    for status, judged in (("FAIL", known.shown), ("PASS", known.missed)):
        for name, told in (("P1-it-holds", True), ("P2-it-holds", False)):
            found = check(status, id=f"{name}@2x2", kind="identity", case=plain)
            assert judged(KERNEL, found) is told, (status, name)
    assert not known.missed(KERNEL, check("PASS"))


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"layout": "varlen", "lengths": [[1, 2], [1, 5], [1, 1]]}, ("batch", 3)),
        ({"batch": 4}, ("batch", 4)),
        ({"layout": "varlen", "lengths": [[3, 0], [9, 7]]}, ("surplus", 3)),
        ({"layout": "varlen", "lengths": [[3, 0], [9, 7], [0, 0], [0, 5], [2, 0]]}, ("keyless", 5)),
        ({"seqlen_q": 40, "seqlen_k": 8, "window": [3, -1]}, ("beyond_clamp", 8)),
        ({"seqlen_q": 11, "seqlen_k": 8, "window": [3, 9]}, ("beyond_clamp", 2)),
        ({"seqlen_q": 40, "seqlen_k": 8, "window": [8, -1]}, ("beyond_clamp", 0)),
        ({"layout": "varlen", "lengths": [[9, 2], [5, 5]], "window": [3, -1]}, ("beyond_clamp", 2)),
    ],
)
def test_what_follows_from_the_fields_of_a_case_can_be_asked(
    change: dict[str, Any], value: tuple[str, float]
) -> None:
    name, number = value
    for bound, told in ((f"== {number}", True), (f"> {number}", False)):
        known = Condition.parse({name: bound})
        assert known.holds(check(case={"seqlen_q": 2, "seqlen_k": 2, **change})) is told


LSE = {"check": "lse", "statistic": "lse_error"}
NOT_EMPTY = {"check": "lse", "statistic": "lse_on_empty_rows"}
LSE_NAN = {"check": "lse", "statistic": "non_finite"}
OUT_WRONG = {"check": "output", "statistic": "max_z"}
OUT_NAN = {"check": "output", "statistic": "non_finite"}
DIFFERS = {"check": "identity", "statistic": "lse_error"}
DQ_NAN = {"check": "gradient", "statistic": "dq_non_finite"}
CHANGED = {"check": "contract", "statistic": "input-changed"}
RAISES = {"check": "call", "statistic": "raises"}
LOST = {"check": "process", "statistic": "device_lost"}
PACKED = ((70, 133), (0, 7), (65, 129), (3, 0), (1, 200), (0, 0))
BEHIND = ((64, 127), (2, 1), (255, 63), (511, 127), (7, 512))
PIECES = ((2, 36), (190, 2), (362, 1), (93, 32), (19, 2))
ONE = {"head_dim": 8, "batch": 1, "heads": 1, "heads_k": 1}
PAGED = {"layout": "paged", "causal": True}


@pytest.mark.parametrize(
    ("candidate", "case", "finding", "name"),
    [
        ("vllm-fa2", Case(70, 200, heads=4, lengths=PACKED, page=64, kind="peaked", **PAGED), LSE,
         "fa2-paged-empty-lse"),
        ("vllm-fa2", Case(362, 36, 88, heads=4, heads_k=4, lengths=PIECES, page=16, kind="shifted",
                          **PAGED), LSE, "fa2-paged-empty-lse"),
        ("vllm-fa2", Case(511, 512, 56, heads=1, heads_k=1, lengths=BEHIND, page=16, kind="edge",
                          window=(0, 0), dtype="fp16", **PAGED), CHANGED, "fa2-paged-empty-lse"),
        ("vllm-fa2", Case(7, 9, lengths=((0, 7), (7, 9)), page=16, layout="paged", **ONE), CHANGED,
         None),
        ("flash-attn-2", Case(33, 0, backward=True), RAISES, "fa2-no-keys-backward"),
        ("flash-attn-2", Case(33, 1, backward=True), RAISES, None),
        ("flash-attn-2", Case(33, 0), RAISES, None),
        ("flash-attn-2-deterministic", Case(33, 0, backward=True), RAISES, None),
        ("vllm-fa2", Case(4, 2, window=(0, -1), **ONE), LSE, "fa2-window-ahead"),
        ("vllm-fa2", Case(3, 2, window=(0, -1), **ONE), LSE, None),
        ("vllm-fa2", Case(4, 2, window=(0, 1), **ONE), LSE, None),
        ("vllm-fa2", Case(4, 2, window=(0, 2), **ONE), LSE, None),
        ("vllm-fa2", Case(4, 2, window=(0, 3), **ONE), LSE, "fa2-window-ahead"),
        ("vllm-fa2", Case(4, 2, window=(-1, 300), **ONE), LSE, None),
        ("vllm-fa2", Case(4, 2, window=(300, -1), **ONE), LSE, None),
        ("vllm-fa2", Case(9, 100, lengths=((5, 2), (9, 100)), window=(3, -1), layout="varlen",
                          **ONE), LSE, None),
        ("vllm-fa2", Case(9, 4, lengths=((9, 2), (4, 4)), window=(3, -1), layout="varlen", **ONE),
         LSE, "fa2-window-ahead"),
        ("vllm-fa2", Case(7, 9, lengths=((0, 7), (7, 9)), page=16, layout="paged", **ONE), LSE,
         None),
        ("vllm-fa2", Case(7, 9, lengths=((3, 0), (7, 9)), page=16, layout="paged", **ONE), LSE,
         "fa2-paged-empty-lse"),
        ("vllm-fa2", Case(7, 9, lengths=((0, 7), (7, 9)), page=16, layout="paged", **ONE), LOST,
         None),
        ("vllm-fa2", Case(1, 200, heads=4), LSE, "vllm-fa2-grouped-decode-lse"),
        ("vllm-fa2", Case(1, 200, heads=4, batch=1), LSE, None),
        ("vllm-fa2", Case(2, 200, heads=4), LSE, None),
        ("vllm-fa3", Case(1, 2, sinks=True, kind="sunken", **ONE), LSE_NAN,
         "vllm-fa3-sink-overflow"),
        ("vllm-fa3", Case(252, 2, 8, heads=3, heads_k=1, batch=1, sinks=True, kind="large"),
         LSE_NAN, "vllm-fa3-sink-overflow"),
        ("vllm-fa3", Case(252, 2, sinks=True), LSE_NAN, None),
        ("vllm-fa3", Case(1, 0, **ONE), NOT_EMPTY, "vllm-fa3-no-keys-lse"),
        ("vllm-fa3", Case(1, 0, lengths=((1, 0),), layout="varlen", **ONE), NOT_EMPTY,
         "vllm-fa3-no-keys-lse"),
        ("vllm-fa3", Case(1, 9, lengths=((1, 0), (1, 9)), layout="varlen", **ONE), NOT_EMPTY, None),
        ("vllm-fa3", Case(131, 2, causal=True, sinks=True, **{**ONE, "head_dim": 104}), NOT_EMPTY,
         "vllm-fa3-sink-empty-rows"),
        ("vllm-fa3", Case(130, 2, causal=True, sinks=True, **{**ONE, "head_dim": 104}), NOT_EMPTY,
         None),
        ("vllm-triton", Case(1, 2, softcap=5.0, kind="sunken", **{**ONE, "head_dim": 32}), OUT_NAN,
         "vllm-triton-softcap-overflow"),
        ("torch-sdpa-cudnn", Case(257, 64, 72, heads=4, head_dim_v=136, dropout=0.17, backward=True,
                                  dtype="fp16", kind="shifted"), DQ_NAN,
         "cudnn-half-tile-backward-nan"),
        ("torch-sdpa-efficient", Case(33, 200, batch=1, memory="far-rows"), LOST,
         "torch-efficient-far-rows"),
        ("torch-sdpa-efficient", Case(33, 65, memory="far"), LOST, None),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else None,
)  # fmt: skip
def test_what_failed_on_an_h200_is_named_and_its_neighbour_is_not(
    candidate: str, case: Case, finding: dict[str, str], name: str | None
) -> None:
    version = "2.11.0" if candidate.startswith("torch") else "0.24.0"
    lse = math.inf if candidate == "vllm-fa2" else -math.inf
    of = Subject(candidate=candidate, version=version, target="sm_90", lse_on_empty_rows=lse)
    status = {"process": "CRASH", "call": "ERROR"}.get(finding["check"], "FAIL")
    assert defects.name_of(of, Outcome(case=case, status=status, findings=[finding])) == name


@pytest.mark.parametrize(
    ("candidate", "case", "findings"),
    [
        ("vllm-fa2", Case(1, 200, heads=4), [OUT_WRONG, LSE]),
        ("vllm-fa2", Case(70, 200, heads=4, lengths=PACKED, page=64, **PAGED), [OUT_NAN, LSE]),
        ("vllm-fa3", Case(1, 2, sinks=True, kind="sunken", **ONE), [OUT_WRONG, LSE_NAN]),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else None,
)  # fmt: skip
def test_a_defect_of_the_log_sum_exp_excuses_no_wrong_output(
    candidate: str, case: Case, findings: list[dict[str, str]]
) -> None:
    lse = math.inf if candidate == "vllm-fa2" else -math.inf
    of = Subject(candidate=candidate, version="0.24.0", target="sm_90", lse_on_empty_rows=lse)
    both = Outcome(case=case, status="FAIL", findings=findings)
    assert defects.name_of(of, both) is None
    assert defects.name_of(of, replace(both, findings=findings[1:])) is not None


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (Identity("P12-last-row", "", Case(113, 203, heads=4, causal=True)),
         "vllm-fa2-grouped-decode-lse"),
        (Identity("P12-last-row", "", Case(113, 203, causal=True)), None),
        (Identity("P4-paged", "", Case(113, 203, heads=4, causal=True)), None),
    ],
    ids=lambda value: value.id if isinstance(value, Identity) else None,
)  # fmt: skip
def test_an_identity_that_failed_on_an_h200_is_named_by_the_call_it_makes(
    identity: Identity, name: str | None
) -> None:
    of = Subject(candidate="vllm-fa2", version="0.24.0", target="sm_90", lse_on_empty_rows=math.inf)
    shown = document(id=identity.id, status="FAIL", findings=[DIFFERS], **suites.facts(identity))
    assert defects.name_of(of, Outcome.read(shown)) == name


words = st.text(min_size=1, max_size=9)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
conditions = st.dictionaries(
    st.sampled_from(["features", "without", "head_dim", "dtype", "causal", "window", "group"])
    | words,
    anything,
    max_size=4,
)


@given(st.sampled_from(["case", "surely", "shows", "smallest", "candidates", "targets"]), anything)
def test_no_entry_breaks_the_loader_otherwise_than_by_a_message(key: str, value: Any) -> None:
    with contextlib.suppress(ValueError):
        defects.parse({**ENTRY, key: value})


@given(conditions)
def test_a_condition_that_was_read_can_be_asked_of_every_case(table: dict[str, Any]) -> None:
    try:
        known = Condition.parse(table)
    except (TypeError, ValueError):
        return
    for case in (Case(1, 1), Case(5, 3, 80, heads=4, causal=True, window=(3, 0))):
        outcome = Outcome(case=case, status="FAIL", findings=())
        assert known.holds(outcome) in (True, False)


@given(st.sets(st.sampled_from(sorted(FEATURES))), st.sets(st.sampled_from(sorted(FEATURES))))
def test_a_condition_holds_where_all_wanted_features_are_and_none_of_the_others(
    wanted: set[str], unwanted: set[str]
) -> None:
    known = Condition.parse({"features": list(wanted), "without": list(unwanted)})
    case = Case(203, 113, 80, heads=4, heads_k=1, causal=True)
    outcome = Outcome(case=case, status="FAIL", findings=())
    assert known.holds(outcome) == (wanted <= case.features and not unwanted & case.features)
