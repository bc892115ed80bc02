"""The attention suite runs inside a cell: one candidate per run, one test per check.

python -m pytest tests/attention/test_attention.py --candidate torch-cpu-flash --device cpu
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pinproof_cell.suite import session


def pytest_addoption(parser: pytest.Parser) -> None:
    session.arguments(parser.getgroup("pinproof").addoption)


def pytest_configure(config: pytest.Config) -> None:
    # Before torch and Triton are imported, which tests do.
    opened = session.Session(config.option)
    opened.prepare()
    config.stash[OPENED] = opened


OPENED = pytest.StashKey[session.Session]()


@pytest.fixture(scope="session")
def candidate(pytestconfig: pytest.Config) -> session.Session:
    """The session of the candidate under test."""
    opened = pytestconfig.stash[OPENED]
    if reason := opened.open():
        pytest.exit(f"{opened.name} cannot run here: {reason}", returncode=3)
    return opened
