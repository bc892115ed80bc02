"""The attention suite runs inside a cell: one candidate per run, one test per case.

python -m pytest tests/attention/test_attention.py --candidate torch-cpu-flash --device cpu
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from pinproof_cell.suite.supervise import Journal


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pinproof")
    group.addoption("--candidate", default="triton-ref", help="name, or FILE.py:NAME")
    group.addoption("--device", default="cpu", choices=("cpu", "cuda"))
    group.addoption("--target", default=None, help="whose thresholds: cpu, sm_90, sm_120")
    group.addoption("--request", default=None, help="JSON file with target and seed")
    group.addoption("--seed", default=None, type=int)
    group.addoption("--journal", default=None, help="JSON lines; cases begun in it are left out")
    group.addoption("--cases", default=None, help="JSON file with the list of case ids to run")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cpu":
        # Triton and OpenBLAS read these when they are imported, which is after this.
        os.environ.setdefault("TRITON_INTERPRET", "1")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if config.getoption("--journal"):
        _die_with_the_supervisor()


def _die_with_the_supervisor() -> None:
    """Ask Linux to kill us when our parent dies, since we are in a process group of our own."""
    set_pdeathsig = 1
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(set_pdeathsig, signal.SIGKILL)


@pytest.fixture(scope="session")
def journal(pytestconfig: pytest.Config) -> Journal | None:
    path = pytestconfig.getoption("--journal")
    return Journal(Path(path)) if path else None


@pytest.fixture(scope="session")
def request_document(pytestconfig: pytest.Config) -> dict[str, Any]:
    """Target and seed: from --request, and each from its own option where that is given."""
    path = pytestconfig.getoption("--request")
    document = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    for name in ("target", "seed"):
        given = pytestconfig.getoption(f"--{name}")
        if given is not None:
            document[name] = given
    return {"target": "cpu", "seed": 0, **document}


@pytest.fixture(scope="session")
def candidate(
    pytestconfig: pytest.Config, journal: Journal | None, request_document: dict[str, Any]
) -> Any:
    """The candidate under test; the journal's session line says whether it can run here."""
    from pinproof_cell import candidates
    from pinproof_cell.world import device

    found = candidates.get(pytestconfig.getoption("--candidate"))
    reason = found.available()
    if journal:
        journal.add(
            "session",
            candidate=found.name,
            version=found.version,
            reason=reason,
            device=device.facts(request_document["target"]),
        )
    if reason:
        pytest.exit(f"{found.name} cannot run here: {reason}", returncode=3)
    if pytestconfig.getoption("--device") == "cpu":
        import torch

        torch.set_num_threads(1)
    return found
