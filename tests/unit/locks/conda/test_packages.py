import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from test_conda_lockfile import package

from pinproof.errors import InfrastructureError
from pinproof.locks.conda import packages

CONTENT = b"the package"
SHA = hashlib.sha256(CONTENT).hexdigest()


def local(root: Path, name: str = "a", content: bytes = CONTENT):
    made = package(name, url=(root / f"{name}-1.0-h0_0.conda").as_uri(), sha256=SHA)
    (root / made.file).write_bytes(content)
    return made


def gathered(wanted, cache: Path, download=None):
    return asyncio.run(packages.gather(wanted, cache, download))


def served(content: bytes):
    asked: list[str] = []

    async def download(url: str, into: Path) -> None:
        asked.append(url)
        into.write_bytes(content)

    return download, asked


def remote(name: str = "a"):
    return package(name, url=f"https://host/c/linux-64/{name}-1.0-h0_0.conda", sha256=SHA)


def test_what_is_gathered_are_copies_with_the_bytes_of_the_lock(tmp_path):
    wanted = [local(tmp_path, name) for name in ("a", "b")]
    found = gathered(wanted, tmp_path / "cache")
    assert {url: path.read_bytes() for url, path in found.items()} == dict.fromkeys(
        (each.url for each in wanted), CONTENT
    )
    assert all(path.is_relative_to(tmp_path / "cache") for path in found.values())


def test_a_package_with_other_bytes_is_refused_from_a_disk_and_from_a_network(tmp_path):
    download, _ = served(b"something else")
    for wanted in (local(tmp_path, content=b"something else"), remote()):
        with pytest.raises(InfrastructureError, match="is not the package of its lock"):
            gathered([wanted], tmp_path / "cache", download)
        assert not list((tmp_path / "cache").rglob("*conda*"))


def test_what_was_gathered_once_is_not_fetched_again(tmp_path):
    download, asked = served(CONTENT)
    for _ in range(2):
        gathered([remote()], tmp_path, download)
    assert len(asked) == 1


def test_an_archive_that_was_damaged_since_is_fetched_again(tmp_path):
    download, asked = served(CONTENT)
    (path,) = gathered([remote()], tmp_path, download).values()
    path.write_bytes(b"damaged")
    (path,) = gathered([remote()], tmp_path, download).values()
    assert (path.read_bytes(), len(asked)) == (CONTENT, 2)


def test_without_a_network_only_what_is_here_is_used(tmp_path):
    download, _ = served(CONTENT)
    with pytest.raises(InfrastructureError, match="is not on this machine"):
        gathered([remote()], tmp_path)
    gathered([remote()], tmp_path, download)
    assert gathered([remote()], tmp_path)


def test_a_download_that_fails_says_from_where_and_why_in_one_line(tmp_path):
    async def fails(url: str, into: Path) -> None:
        raise RuntimeError(f"error sending request\nCaused by: {url} refused")

    wanted = replace(remote(), url="https://host/t/tk-SECRET/c/linux-64/a-1.0-h0_0.conda")
    with pytest.raises(InfrastructureError, match=r"https://host/t/\*\*\*\*/c/linux-64") as caught:
        gathered([wanted], tmp_path, fails)
    assert caught.value.cause.startswith("Caused by: https://host/")
    assert "SECRET" not in str(caught.value)


def test_a_package_that_is_gone_from_the_disk_is_named(tmp_path):
    wanted = replace(local(tmp_path), url=(tmp_path / "gone" / "a-1.0-h0_0.conda").as_uri())
    with pytest.raises(InfrastructureError, match=r"cannot be had from .*: No such file"):
        gathered([wanted], tmp_path / "cache")


def test_what_can_be_had_is_kept_where_another_package_cannot(tmp_path):
    wanted = [local(tmp_path, "a", b"other"), *(local(tmp_path, name) for name in ("b", "c", "d"))]
    with pytest.raises(InfrastructureError, match=r"a-1.0-h0_0.conda is not the package"):
        gathered(wanted, tmp_path / "cache")
    kept = {path.name[0] for path in (tmp_path / "cache").rglob("*.conda")}
    assert kept == {"b", "c", "d"}
