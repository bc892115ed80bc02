"""Every check of the suite, put to one candidate."""

from __future__ import annotations

import pytest
from conftest import OPENED

from pinproof_cell.suite.checks import Check
from pinproof_cell.suite.session import Session


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take the checks that were asked for and that no child before this one has begun."""
    found = list(metafunc.config.stash[OPENED].checks())
    metafunc.parametrize("check", found, ids=[check.id for check in found])


def test_attention_is_what_a_correct_kernel_computes(check: Check, candidate: Session) -> None:
    """The check passes: a case lies where rounding alone may put it, an identity holds."""
    result = candidate.ask(check)
    if result.status == "UNSUPPORTED":
        pytest.skip(f"UNSUPPORTED: {'; '.join(result.reasons)}")
    assert result.status == "PASS", "; ".join(result.reasons)
