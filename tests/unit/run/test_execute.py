"""Tests of steps that run as sessions of a real child nox."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import empty_cells
import pytest

from pinproof.evidence.evidence import Evidence, Outcome
from pinproof.evidence.store import Store
from pinproof.plan.plan import Step
from pinproof.plan.stage import Stage
from pinproof.run.execute import Executor, SessionSpec, classify
from pinproof.run.process import Finished


class Lane:
    """Executes programs, one session each, and keeps what was said of them."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "store")
        self.lines: list[str] = []
        self.begun: list[str] = []
        self.executor = Executor(
            store=self.store,
            envdir=root / "nox",
            machine=empty_cells.CPU,
            on_line=lambda step, line: self.lines.append(line),
        )

    def run(
        self,
        *programs: str,
        timeout: float = 60,
        cancel: threading.Event | None = None,
        out: Path | None = None,
        secrets: dict[str, str] | None = None,
    ) -> list[Evidence]:
        lane = []
        for number, program in enumerate(programs):
            step = Step(
                owner=f"cpu-{number}",
                stage=Stage.INSPECT if out else Stage.INSTALL,
                cells=(f"cpu-{number}",),
                inputs={"number": number},
                digest=f"{number}" * 64,
                timeout=timeout,
            )
            spec = SessionSpec(
                session=step.owner,
                python=empty_cells.PYTHON,
                venv_backend="uv",
                commands=(["python", "-c", program],),
                env={"PATH": os.environ["PATH"], "NAMED": "yes"},
                secrets=secrets or {},
                out=out,
            )
            lane.append((step, spec))
        ended: list[Evidence] = []
        self.executor.execute(
            lane,
            cancel or threading.Event(),
            lambda step: self.begun.append(step.owner),
            lambda step, evidence: ended.append(evidence),
        )
        return ended


def test_a_session_that_ends_well_is_ok_and_its_words_are_in_its_log(tmp_path: Path) -> None:
    lane = Lane(tmp_path)
    (evidence,) = lane.run("print('hello from the cell')")
    assert (evidence.outcome, evidence.reason) == (Outcome.OK, "")
    assert "hello from the cell" in lane.lines
    log = (lane.store.root / evidence.log).read_text(encoding="utf-8")
    assert "hello from the cell" in log
    assert lane.begun == ["cpu-0"]


def test_what_the_session_left_is_its_data(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    left = json.dumps({"schema": 1, "stage": "inspect", "a": 1})
    (evidence,) = Lane(tmp_path).run(f"open({str(out)!r}, 'w').write({left!r})", out=out)
    assert evidence.data == json.loads(left)


def test_data_of_an_earlier_run_is_not_taken_for_this_one_s(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text('{"a": 1}', encoding="utf-8")
    (evidence,) = Lane(tmp_path).run("pass", out=out)
    assert evidence.outcome is not Outcome.OK
    assert evidence.data == {}


def test_a_failed_step_does_not_keep_the_next_ones_of_its_lane_from_running(
    tmp_path: Path,
) -> None:
    first, second, third = Lane(tmp_path).run("print(1)", "raise SystemExit('no!')", "print(3)")
    assert first.outcome is Outcome.OK
    assert (second.outcome, third.outcome) == (Outcome.FAILED, Outcome.OK)


def test_a_signal_is_a_crash_with_its_name(tmp_path: Path) -> None:
    (evidence,) = Lane(tmp_path).run("import os, signal; os.kill(os.getpid(), signal.SIGFPE)")
    assert evidence.outcome is Outcome.CRASHED
    assert evidence.reason.startswith("SIGFPE")


def test_being_killed_speaks_of_the_machine(tmp_path: Path) -> None:
    (evidence,) = Lane(tmp_path).run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert evidence.outcome is Outcome.INFRA
    assert "memory" in evidence.reason


def test_a_step_that_hangs_is_ended_and_the_next_one_runs(tmp_path: Path) -> None:
    began = time.monotonic()
    first, second = Lane(tmp_path).run("import time; time.sleep(60)", "print(2)", timeout=2)
    assert (first.outcome, second.outcome) == (Outcome.TIMEOUT, Outcome.OK)
    assert first.reason == "no end after 2 s"
    assert time.monotonic() - began < 30


def test_a_cancelled_lane_says_so_of_every_step(tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(1.5, cancel.set).start()
    ended = Lane(tmp_path).run("import time; time.sleep(60)", "print(2)", cancel=cancel)
    assert [evidence.outcome for evidence in ended] == [Outcome.CANCELLED] * 2


def test_an_environment_that_cannot_be_made_is_the_machine_s_fault(tmp_path: Path) -> None:
    (tmp_path / "nox").write_text("a file in the way", encoding="utf-8")
    (evidence,) = Lane(tmp_path).run("pass")
    assert evidence.outcome is Outcome.INFRA
    assert evidence.reason.startswith("the environment could not be made")


def test_a_command_sees_what_it_was_given_and_nothing_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "secret")
    program = "import os; print(os.environ.get('A_TOKEN'), os.environ['NAMED'])"
    lane = Lane(tmp_path)
    lane.run(program)
    assert "None yes" in lane.lines


def test_secrets_reach_the_command_and_no_file(tmp_path: Path) -> None:
    lane = Lane(tmp_path)
    lane.run("import os; print(len(os.environ['A_TOKEN']))", secrets={"A_TOKEN": "hush-hush"})
    assert "9" in lane.lines
    written = [path for path in lane.store.root.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if "hush-hush" in path.read_text("utf-8")]


@pytest.mark.parametrize(
    ("status", "output", "outcome"),
    [
        (1, "OSError: [Errno 28] No space left on device\n", Outcome.INFRA),
        (1, "ImportError: libfoo.so.1: cannot open shared object file\n", Outcome.FAILED),
        (-signal.SIGSEGV, "Fatal Python error: Segmentation fault\n", Outcome.CRASHED),
        (None, "no interpreter\n", Outcome.INFRA),
    ],
)
def test_the_end_of_a_step_is_told_from_its_status_and_its_words(
    status: int | None, output: str, outcome: Outcome
) -> None:
    finished = Finished(returncode=1, seconds=1, output=output)
    assert classify(Stage.INSPECT, finished, status, None)[0] is outcome


def test_what_a_listener_raises_is_not_taken_for_a_nox_that_cannot_be_started(
    tmp_path: Path,
) -> None:
    def full(step: str, line: str) -> None:
        raise OSError(28, "No space left on device")

    lane = Lane(tmp_path)
    lane.executor = replace(lane.executor, on_line=full)
    with pytest.raises(OSError, match="No space left"):
        lane.run("print(1)")


def test_a_known_failure_of_the_machine_is_named_so_that_the_table_gives_the_next_step() -> None:
    said = "OSError: [Errno 28] No space left on device\n"
    finished = Finished(returncode=1, seconds=1, output=said)
    assert classify(Stage.INSTALL, finished, 1, None) == (Outcome.INFRA, f"{said.strip()} [B20]")
