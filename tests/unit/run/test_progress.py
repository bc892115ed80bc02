"""What a person sees while a run goes."""

import io
import os
import re
import threading
import time

import pytest

from pinproof.run import progress
from pinproof.run.progress import LiveProgress, PlainProgress, duration


class Terminal:
    """A real pseudo-terminal: what is written to ``stream`` can be read as its screen's input."""

    def __init__(self):
        self._ours, theirs = os.openpty()
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        # Linux answers EIO once the other side is closed.
        try:
            while part := os.read(self._ours, 4096):
                self._seen += part
        except OSError:
            pass

    def close(self):
        if not self.stream.closed:
            self.stream.close()
        self._reader.join(5)
        os.close(self._ours)
        return self._seen.decode()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


def words(screen):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)


def test_plain_progress_says_one_line_at_the_start_and_one_at_the_end_of_a_step():
    out = io.StringIO()
    shown = PlainProgress(out, 12)
    shown.start("cpu-1:inspect", "torch 2.13.0")
    shown.line("cpu-1:inspect", "some output")
    shown.finish("cpu-1:inspect", "ok", 3.21)
    shown.start("cpu-1:correctness", "torch 2.13.0")
    shown.finish("cpu-1:correctness", "failed", 65, "no module named x")
    shown.close()
    assert out.getvalue().splitlines() == [
        "[ 0/12] start cpu-1:inspect  torch 2.13.0",
        "[ 1/12] ok cpu-1:inspect  3.2s",
        "[ 1/12] start cpu-1:correctness  torch 2.13.0",
        "[ 2/12] failed cpu-1:correctness  1m05s: no module named x",
    ]


def test_a_long_step_shows_that_it_is_alive_with_its_last_line():
    out = io.StringIO()
    shown = PlainProgress(out, heartbeat=0.1)
    shown.start("a:build", "wheel")
    shown.line("a:build", "[7/73] nvcc")
    time.sleep(0.35)
    shown.finish("a:build", "ok", 0.35)
    time.sleep(0.2)
    shown.close()
    beats = [line for line in out.getvalue().splitlines() if "..." in line]
    assert len(beats) >= 2
    assert all(line.endswith(": [7/73] nvcc") for line in beats)
    assert out.getvalue().splitlines()[-1].startswith("[1] ok a:build")


@pytest.mark.parametrize("nasty", ["\x1b[2J\x1b]0;title\x07ok", "50%\r99%\rok", "o\x00\x08k\x9b"])
def test_a_line_of_output_cannot_steer_the_terminal(nasty):
    out = io.StringIO()
    shown = PlainProgress(out)
    shown.start("a", nasty)
    shown.finish("a", "failed", 1, nasty)
    shown.close()
    assert out.getvalue().splitlines() == ["[0] start a  ok", "[1] failed a  1.0s: ok"]


def test_a_terminal_gets_the_live_display_and_everything_else_plain_lines(terminal, monkeypatch):
    live = progress.make(terminal.stream, 1)
    live.close()
    assert isinstance(live, LiveProgress)
    assert isinstance(progress.make(io.StringIO(), 1), PlainProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress.make(terminal.stream, 1), PlainProgress)
    terminal.close()


def test_the_live_display_shows_running_steps_what_is_done_and_the_time_left(terminal):
    shown = progress.make(terminal.stream, 3)
    shown.start("cpu-1:inspect", "torch 2.13.0")
    shown.start("cpu-2:inspect", "torch 2.14.0")
    shown.line("cpu-1:inspect", "import \x1b[2Jtorch [bold]now[/bold]")
    time.sleep(0.6)
    shown.finish("cpu-1:inspect", "ok", 0.6)
    shown.finish("cpu-2:inspect", "failed", 0.6, "import [red]failed")
    shown.start("cpu-1:correctness", "torch 2.13.0")
    time.sleep(0.6)
    shown.close()
    raw = terminal.close()
    screen = words(raw)
    assert "\x1b[2J" not in raw
    assert "import torch [bold]now[/bold]" in screen
    assert "torch 2.14.0" in screen
    assert "[0/3]" in screen
    assert re.search(r"\[2/3\]\s+\d\.\ds\s+ETA \d\.\ds", screen)
    assert "ok cpu-1:inspect  0.6s  torch 2.13.0" in screen
    assert "failed cpu-2:inspect  0.6s  torch 2.14.0  import [red]failed" in screen


def test_the_live_display_gives_the_cursor_back_even_with_steps_running(terminal):
    shown = progress.make(terminal.stream, 1)
    shown.start("a", "b")
    shown.close()
    shown.close()
    raw = terminal.close()
    assert raw.rfind("\x1b[?25h") > raw.rfind("\x1b[?25l") >= 0


@pytest.mark.parametrize("kind", ["plain", "live"])
def test_many_threads_may_report_at_once(kind, terminal):
    out = io.StringIO()
    shown = PlainProgress(out, 80) if kind == "plain" else progress.make(terminal.stream, 80)

    def work(number):
        for step in range(10):
            name = f"s{number}.{step}"
            shown.start(name, "t")
            for count in range(20):
                shown.line(name, f"line {count}")
            shown.finish(name, "ok", 0.1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    shown.close()
    text = out.getvalue() + words(terminal.close())
    assert set(re.findall(r"ok (s\d\.\d) ", text)) == {
        f"s{number}.{step}" for number in range(8) for step in range(10)
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (59.4, "59s"), (59.7, "1m00s"), (3599, "59m59s"),
     (7620, "2h07m")],
)  # fmt: skip
def test_a_duration_reads_as_people_say_it(seconds, text):
    assert duration(seconds) == text
