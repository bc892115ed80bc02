"""Tests of the one place that starts processes, with real children."""

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pinproof.run import process


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_of_both_streams_is_returned_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    lines: list[str] = []
    done = process.run(
        python("import sys; print('out', flush=True); print('err', file=sys.stderr)"),
        log=log,
        on_line=lines.append,
    )
    assert done.ok
    assert sorted(lines) == ["err", "out"]
    assert done.output == log.read_text()


def test_a_status_is_no_signal_and_not_ok() -> None:
    done = process.run(python("raise SystemExit(3)"))
    assert (done.returncode, done.ok, done.signal_name) == (3, False, None)


def test_a_signal_is_named() -> None:
    done = process.run(python("import os; os.kill(os.getpid(), 8)"))
    assert done.signal_name == "SIGFPE"


def test_a_timeout_ends_the_whole_family_even_those_that_left_the_group(tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    code = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True);"
        f"open({str(pids)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    done = process.run(python(code), timeout=2.0)
    assert done.timed_out
    assert not done.ok
    assert done.seconds < 20
    grandchild = int(pids.read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and psutil.pid_exists(grandchild):
        if psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        assert not psutil.pid_exists(grandchild)


def test_a_set_event_cancels_the_child() -> None:
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    done = process.run(python("import time; time.sleep(60)"), cancel=cancel)
    assert done.cancelled
    assert not done.timed_out


def test_a_background_child_that_keeps_the_pipe_does_not_hold_the_caller() -> None:
    code = (
        "import subprocess, sys;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    done = process.run(python(code), timeout=30)
    assert done.ok
    assert done.seconds < 20


def test_only_the_given_environment_reaches_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    done = process.run(
        python("import os; print(sorted(os.environ))"), env={"PATH": os.environ["PATH"]}
    )
    assert "SECRET_TOKEN" not in done.output


def test_only_the_end_of_a_long_output_is_kept() -> None:
    done = process.run(python("for i in range(20000): print('x' * 50, i)"), keep=1000)
    assert len(done.output) <= 1000
    assert done.output.endswith("19999\n")
