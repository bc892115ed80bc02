"""Tests of source archives of releases: fetched from real indexes, and checked before all else."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from wheels import make_sdist, sha256

from pinproof.builds import source
from pinproof.builds.source import Kind, Source
from pinproof.errors import ConfigurationError, PinproofError, ResolveError
from pinproof.locks import sdist
from pinproof.locks.installer import Installer, installer

PASSWORD = "correct-horse"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of flash-attn whose setup.py leaves a mark when it is run."""
    setup = f"open({str(tmp_path / 'RAN')!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n"
    return make_sdist(tmp_path / "files", "flash-attn", "2.8.3", {"setup.py": setup})


class Index:
    """An index on loopback that lists `file`, hands out `data`, and wants a user for both."""

    def __init__(self, file: Path) -> None:
        self.file, self.data, self.asked = file, file.read_bytes(), 0
        self.page = f"<a href='/files/{file.name}#sha256={sha256(file)}'>{file.name}</a>"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        known = f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"
        if handler.headers.get("Authorization") != known:
            handler.send_error(401)
            return
        page = f"<!DOCTYPE html><html><body>{self.page}</body></html>".encode()
        body = self.data if handler.path.startswith("/files/") else page
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def index(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    found = Index(release)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    address = f"http://me:{PASSWORD}@127.0.0.1:{server.server_address[1]}/wheels"
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "UV_INDEX", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("UV_DEFAULT_INDEX", address)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(into: Path, planned: str, by: Installer | None = None) -> Path:
    """Lay out the tree of the release, as a build does."""
    origin = Source(project="flash-attn", kind=Kind.RELEASE, place="2.8.3", identity=planned)
    known = by or installer()
    return source.fetch(origin, into, python="3.12", installer=known, say=lambda line: None)


def test_a_release_comes_from_an_index_that_wants_a_password_and_nothing_of_it_is_run(
    index: Index, release: Path, tmp_path: Path
) -> None:
    tree = fetch(tmp_path / "tree", sha256(release))
    assert (tree / "setup.py").is_file()
    assert not (tmp_path / "RAN").exists()


def test_an_archive_that_was_not_planned_is_neither_fetched_nor_run(
    index: Index, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="another source of flash-attn"):
        fetch(tmp_path / "tree", "0" * 64)
    assert not (tmp_path / "tree").exists()
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("planned", [True, False])
def test_bytes_that_are_not_those_that_were_listed_are_neither_unpacked_nor_run(
    index: Index, release: Path, tmp_path: Path, planned: bool
) -> None:
    index.data = make_sdist(tmp_path / "other", "flash-attn", "2.8.3", {}).read_bytes()
    with pytest.raises(ConfigurationError, match="another source of flash-attn"):
        fetch(tmp_path / "tree", sha256(release) if planned else "2.8.3")
    assert not (tmp_path / "tree").exists()
    assert not list(tmp_path.glob("tree.sdist/*"))


def test_a_release_without_a_source_archive_is_told_as_that(index: Index, tmp_path: Path) -> None:
    index.page = ""
    with pytest.raises(ResolveError) as error:
        fetch(tmp_path / "tree", "2.8.3")
    assert error.value.conflict
    assert PASSWORD not in str(error.value)


def test_without_a_network_no_index_is_asked_even_where_the_address_is_known(
    index: Index, release: Path, tmp_path: Path
) -> None:
    fetch(tmp_path / "first", sha256(release))
    asked = index.asked
    with pytest.raises(PinproofError) as error:
        fetch(tmp_path / "tree", sha256(release), installer(offline=True))
    assert not isinstance(error.value, ConfigurationError)
    assert not (isinstance(error.value, ResolveError) and error.value.conflict)
    assert index.asked == asked


def test_a_release_lies_in_a_directory_of_files_as_well(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", str(release.parent))
    found = sdist.fetch(
        "flash-attn==2.8.3", installer(offline=True), python="3.12", into=tmp_path / "into"
    )
    assert sha256(found) == sha256(release)
    assert not (tmp_path / "RAN").exists()
