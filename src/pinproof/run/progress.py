"""Shows a run while it goes: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from pinproof.judge.triage import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Seconds of silence after which a long step says that it is alive.
HEARTBEAT = 30.0

#: Red speaks against the combination; all other ends but "ok" are yellow.
_STYLES = {"ok": "green", "failed": "red", "crashed": "red"}


class Progress(Protocol):
    """Is told what a run does. Every method may be called from any thread."""

    def start(self, step_id: str, title: str) -> None:
        """Say that a step has begun."""

    def line(self, step_id: str, text: str) -> None:
        """Take a line of the step's output."""

    def finish(self, step_id: str, outcome: str, seconds: float, reason: str = "") -> None:
        """Say how a step ended; `reason` is "" where it ended well."""

    def close(self) -> None:
        """Leave the screen as a person expects it. May be called twice."""


def make(stream: TextIO, total: int) -> Progress:
    """Return the display for `stream`: live on a terminal that can move its cursor, else plain."""
    if stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb"):
        from rich.console import Console

        return LiveProgress(Console(file=stream), total)
    return PlainProgress(stream, total)


def duration(seconds: float) -> str:
    """Return a time as people read it: ``3.2s``, ``1m05s``, ``2h07m``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 59.5:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


@dataclass(kw_only=True)
class _Running:
    """A step that runs: when it began, and its last word."""

    title: str
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    last: str = ""


class PlainProgress:
    """One line at the start and the end of a step, and one each `heartbeat` seconds of silence."""

    def __init__(self, stream: TextIO, total: int = 0, heartbeat: float = HEARTBEAT) -> None:
        self._stream = stream
        self._total = total
        self._heartbeat = heartbeat
        self._done = 0
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def start(self, step_id: str, title: str) -> None:
        """Print that a step has begun."""
        with self._lock:
            self._running[step_id] = _Running(title=plain(title))
            self._say(f"start {step_id}  {plain(title)}")

    def line(self, step_id: str, text: str) -> None:
        """Remember the line for the next heartbeat; it stands in the step's log."""
        with self._lock:
            if (step := self._running.get(step_id)) and (word := plain(text)):
                step.last = word

    def finish(self, step_id: str, outcome: str, seconds: float, reason: str = "") -> None:
        """Print how a step ended."""
        with self._lock:
            self._running.pop(step_id, None)
            self._done += 1
            tail = f": {plain(reason)}" if reason else ""
            self._say(f"{outcome} {step_id}  {duration(seconds)}{tail}")

    def close(self) -> None:
        """Stop the heartbeat; no line follows."""
        with self._lock:
            self._closed.set()

    def _say(self, text: str) -> None:
        self._stream.write(f"{_count(self._done, self._total)} {text}\n")
        self._stream.flush()

    def _beat(self) -> None:
        while not self._closed.wait(self._heartbeat / 10):
            with self._lock:
                now = time.monotonic()
                for step_id, step in self._running.items():
                    if now - step.told >= self._heartbeat and not self._closed.is_set():
                        step.told = now
                        tail = f": {step.last[:200]}" if step.last else ""
                        self._say(f"  ... {step_id}  {duration(now - step.began)}{tail}")


class LiveProgress:
    """A display that redraws itself: running steps with their last line, and how far the run is."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.live import Live

        self._console = console
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=4, transient=True
        )
        self._live.start()

    def start(self, step_id: str, title: str) -> None:
        """Show a step among the running ones."""
        with self._lock:
            self._running[step_id] = _Running(title=plain(title))

    def line(self, step_id: str, text: str) -> None:
        """Show the line beside its step."""
        with self._lock:
            if (step := self._running.get(step_id)) and (word := plain(text)):
                step.last = word

    def finish(self, step_id: str, outcome: str, seconds: float, reason: str = "") -> None:
        """Print how a step ended, above the running ones."""
        from rich.text import Text

        with self._lock:
            step = self._running.pop(step_id, None)
            self._done += 1
        style = _STYLES.get(outcome, "yellow")
        text = Text.assemble((outcome, style), f" {step_id}  {duration(seconds)}")
        if step is not None:
            text.append(f"  {step.title}", "dim")
        if reason:
            text.append(f"  {plain(reason)}")
        self._console.print(text)

    def close(self) -> None:
        """Take the display away; what was printed stays."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        with self._lock:
            running, done = list(self._running.items()), self._done
            rows = [(key, step.title, now - step.began, step.last) for key, step in running]
        table = Table.grid(padding=(0, 2))
        for _ in range(2):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.expand = True
        for step_id, title, seconds, last in rows:
            table.add_row(Text(step_id), duration(seconds), Text(last or title, style="dim"))
        total = max(self._total, done)
        foot = Table.grid(padding=(0, 2))
        foot.add_row(
            ProgressBar(total=max(total, 1), completed=done, width=30),
            Text(f"{_count(done, total)}  {duration(now - self._began)}  {self._eta(done, now)}"),
        )
        return Group(table, foot)

    def _eta(self, done: int, now: float) -> str:
        """Guess from the mean so far; steps differ widely, so nothing is said before the first."""
        if not done or self._total <= done:
            return ""
        return f"ETA {duration((now - self._began) / done * (self._total - done))}"


def _count(done: int, total: int) -> str:
    return f"[{done:>{len(str(total))}}/{total}]" if total else f"[{done}]"
