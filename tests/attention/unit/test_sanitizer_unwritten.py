"""A hazard of initcheck where we read an answer: refuted, confirmed, or left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinproof_cell.sanitizer import unwritten
from pinproof_cell.sanitizer.calls import CALLS
from pinproof_cell.sanitizer.report import Hazard
from pinproof_cell.sanitizer.unwritten import UNPROVEN, UNWRITTEN, WRITTEN

OURS = Hazard(what="Uninitialized __global__ memory read", kernel="void at::native::copy<int>()")


def test_a_hazard_is_refuted_only_where_every_call_of_it_was_written() -> None:
    assert unwritten.weighed(OURS, {"a": (WRITTEN, "all"), "b": (WRITTEN, "all")}).warning
    for other in (UNWRITTEN, UNPROVEN):
        told = unwritten.weighed(OURS, {"a": (WRITTEN, "all"), "b": (other, "why")})
        assert (told.warning, told.note) == (False, "why (b)")
    assert unwritten.weighed(OURS, {}) is OURS


def test_nothing_refutes_what_a_kernel_of_the_candidate_read() -> None:
    own = Hazard(what=OURS.what, kernel="_attention_kernel")
    assert unwritten.weighed(own, {"a": (WRITTEN, "all")}) is own


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (
            "out, lse = planted.right(q, k, v, **rest); return q.new_empty(q.shape).copy_(out)",
            WRITTEN,
        ),
        ("return torch.empty_like(q)", UNWRITTEN),
        ("out = torch.empty_like(q); out[:, 1:] = 0; return out", UNWRITTEN),
        ("return torch.zeros_like(q)", UNPROVEN),
        ("raise RuntimeError('bad day')", UNPROVEN),
        ("import os; os.abort()", UNPROVEN),
    ],
)
def test_rows_that_nobody_wrote_are_seen_without_a_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, verdict: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    file = tmp_path / "mine.py"
    file.write_text(
        f"import planted, torch\ndef mine(q, k, v, **rest):\n    {body}\n"
        "def provided(*inputs, **rest):\n    return mine(*inputs, **rest), None\n"
        "provided.supports = planted.right.supports - {'lse'}\n",
        encoding="utf-8",
    )
    found, told = unwritten.look(
        f"{file}:provided", CALLS[0].id, target="cpu", seed=0, scratch=tmp_path
    )
    assert (found, bool(told)) == (verdict, True)
