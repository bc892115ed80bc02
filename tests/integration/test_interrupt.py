"""Ctrl-C in the middle of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from checkouts import CELL, PATIENCE, Project, table


def test_ctrl_c_ends_the_children_keeps_the_evidence_and_prints_what_is_known(
    proven: Project, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    words = ["-s", "matrix", "--", "--cell", CELL, "--store", str(store)]
    log = tmp_path / "out.txt"
    with log.open("w", encoding="utf-8") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "nox", *words],
            cwd=proven.root,
            env=proven.environment(),
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _until(lambda: f"start {CELL}:correctness" in log.read_text(encoding="utf-8"))
        _until(lambda: _measuring(child.pid))
        family = psutil.Process(child.pid).children(recursive=True)
        os.killpg(child.pid, signal.SIGINT)
        code = child.wait(60)
    text = log.read_text(encoding="utf-8")
    assert code == 130, text
    assert "Traceback" not in text
    _until(lambda: not [each for each in family if _alive(each)], 10)
    assert f"cancelled {CELL}:correctness" in text
    assert any("UNVERIFIED" in line or "INCONCLUSIVE" in line for line in table(text))
    kept = {Path(name).name.split("-")[0] for name in proven.evidence(store)}
    assert {"resolve", "install", "inspect"} <= kept
    assert proven.results(store=store)["exit_code"] == 130


def _measuring(pid: int) -> bool:
    """True as soon as a process of the cell's own world is there."""
    for each in psutil.Process(pid).children(recursive=True):
        try:
            if "pinproof_cell" in " ".join(each.cmdline()):
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _until(condition: object, seconds: float = PATIENCE) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come to pass"
        time.sleep(0.1)
