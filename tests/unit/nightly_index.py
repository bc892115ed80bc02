"""An index of nightlies on loopback, served over HTTP: real wheels of ninety days, with gaps."""

from __future__ import annotations

import functools
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from wheels import make_wheel, sha256

TODAY = date(2026, 11, 23)
DAYS = [TODAY - timedelta(days=n) for n in range(90)]
HERE = "cp311-cp311-manylinux_2_28_x86_64"
OTHER_PYTHON = "cp312-cp312-manylinux_2_28_x86_64"
OTHER_MACHINE = "cp311-cp311-manylinux_2_28_aarch64"


def torch_of(day: date, build: str = "cu130") -> str:
    return f"2.17.0.dev{day:%Y%m%d}+{build}"


def triton_of(day: date) -> str:
    return f"3.10.0+git{day:%m%d}"


class _Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *words: Any, user: str = "", **more: Any) -> None:
        self.user = user
        super().__init__(*words, **more)

    def log_message(self, *words: object) -> None:
        pass

    def send_head(self) -> Any:
        known = b64encode(self.user.encode()).decode()
        if self.user and self.headers.get("Authorization") != f"Basic {known}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            return None
        return super().send_head()


@contextmanager
def served(directory: Path, user: str = "") -> Iterator[str]:
    """Serve a directory on loopback, to `user` (``name:password``) alone, and yield its address."""
    handler = functools.partial(_Quiet, directory=str(directory), user=user)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class NightlyIndex:
    """The files of the index, below `root`; `write` puts down its pages."""

    root: Path
    links: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(
        self,
        build: str,
        name: str,
        version: str,
        *,
        tag: str = HERE,
        requires: Iterable[str] = (),
        yanked: str | None = None,
        metadata: bool = True,
    ) -> Path:
        path = make_wheel(self.root / build, name, version, requires=requires, tag=tag)
        extra = ""
        if metadata:
            needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
            path.with_name(path.name + ".metadata").write_text(text)
            extra += ' data-core-metadata="true"'
        if yanked is not None:
            extra += f' data-yanked="{yanked}"'
        href = f"../{quote(path.name)}#sha256={sha256(path)}"
        link = f'<a href="{href}"{extra}>{path.name}</a><br/>'
        self.links.setdefault((build, name), []).append(link)
        return path

    def add_day(self, day: date, build: str = "cu130", *, tag: str = HERE, vision: bool = True):
        self.add(
            build,
            "torch",
            torch_of(day, build),
            tag=tag,
            requires=[f"triton=={triton_of(day)}; platform_system == 'Linux'"],
        )
        self.add(build, "triton", triton_of(day), tag=tag)
        if vision:
            self.add(build, "torchvision", f"0.29.0.dev{day:%Y%m%d}+{build}", tag=tag)

    def write(self) -> None:
        for (build, name), links in self.links.items():
            page = self.root / build / name / "index.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            body = "\n".join(links)
            page.write_text(f"<!DOCTYPE html><html><body><h1>{name}</h1>{body}</body></html>")


def ninety_days(root: Path) -> NightlyIndex:
    """Write an index in which of the newest days two are missing and one is of another Python.

    From the newest: 23 there, 22 missing, 21 for Python 3.12 alone, 20 there, 19 for another
    machine alone, 18 and everything before it there.
    """
    index = NightlyIndex(root)
    for day in DAYS:
        if day == date(2026, 11, 22):
            continue
        tag = {21: OTHER_PYTHON, 19: OTHER_MACHINE}.get(day.day if day.month == 11 else 0, HERE)
        index.add_day(day, tag=tag, vision=day.day != 20)
    for day in DAYS[:5]:
        index.add_day(day, "cpu")
        index.add_day(day, "cu126")
    index.write()
    return index
