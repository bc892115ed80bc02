"""Tests of sources: what they are known by, and what is refused. Git and tar are the real ones."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from pinproof.builds import patching, source
from pinproof.builds.source import Kind
from pinproof.errors import ConfigurationError, InfrastructureError, ResolveError
from pinproof.locks import installer

NOBODY = ("-c", "user.name=n", "-c", "user.email=n@n", "-c", "protocol.file.allow=always")


def git(tree: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", tree, *NOBODY, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(path: Path, files: dict[str, str]) -> str:
    """Make a repository with one commit, and return that."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    for name, text in files.items():
        (path / name).write_text(text)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=one")
    return git(path, "rev-parse", "HEAD")


def with_submodule(path: Path) -> str:
    repository(path / "cutlass", {"cutlass.h": "1"})
    repository(path / "flash", {"setup.py": "one"})
    git(path / "flash", "submodule", "--quiet", "add", f"file://{path / 'cutlass'}", "cutlass")
    git(path / "flash", "commit", "--quiet", "--message=two")
    return git(path / "flash", "rev-parse", "HEAD")


def fetch(text: str, into: Path) -> Path:
    found = source.describe("flash-attn", text)
    return source.fetch(
        found, into, python="3.12", installer=installer.installer(), say=lambda line: None
    )


def test_a_branch_is_known_by_the_commit_that_it_names_now(tmp_path: Path) -> None:
    commit = repository(tmp_path / "flash", {"setup.py": "one"})
    found = source.describe("flash-attn", f"git+file://{tmp_path}/flash@main")
    assert (found.kind, found.identity) == (Kind.GIT, commit)


def test_a_commit_comes_with_its_submodules_and_without_history(tmp_path: Path) -> None:
    commit = with_submodule(tmp_path)
    tree = fetch(f"git+file://{tmp_path}/flash@{commit}", tmp_path / "out")
    assert (tree / "cutlass" / "cutlass.h").read_text() == "1"
    assert git(tree, "rev-list", "--count", "HEAD") == "1"


def test_a_commit_that_does_not_exist_is_told_as_that(tmp_path: Path) -> None:
    repository(tmp_path / "flash", {"setup.py": "one"})
    with pytest.raises(ResolveError, match=f"has no commit {'1' * 40}") as error:
        fetch(f"git+file://{tmp_path}/flash@{'1' * 40}", tmp_path / "out")
    assert error.value.conflict


def test_a_repository_that_is_not_there_says_nothing_of_the_combination(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot be fetched"):
        fetch(f"git+file://{tmp_path}/nothing@{'1' * 40}", tmp_path / "out")


def test_a_tree_lacking_a_submodule_is_refused(tmp_path: Path) -> None:
    with_submodule(tmp_path)
    git(tmp_path, "clone", "--quiet", str(tmp_path / "flash"), "copy")
    with pytest.raises(ConfigurationError, match=r"submodule cutlass of .* is missing") as error:
        source.describe("flash-attn", str(tmp_path / "copy"))
    assert "submodule update --init" in error.value.remedy


def test_a_submodule_with_changes_or_at_another_commit_is_refused(tmp_path: Path) -> None:
    with_submodule(tmp_path)
    inside = tmp_path / "flash" / "cutlass"
    (inside / "cutlass.h").write_text("2")
    with pytest.raises(ConfigurationError, match="changes that no commit holds"):
        source.describe("flash-attn", str(tmp_path / "flash"))
    git(inside, "commit", "--quiet", "--all", "--message=three")
    with pytest.raises(ConfigurationError, match="not at the commit"):
        source.describe("flash-attn", str(tmp_path / "flash"))


def test_a_tree_is_known_by_its_files_and_not_by_what_a_build_left(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "csrc").mkdir(parents=True)
    (tree / "csrc" / "x.cu").write_text("1")
    before = source.describe("flash-attn", str(tree)).identity
    (tree / "build").mkdir()
    (tree / "build" / "x.o").write_text("object")
    (tree / "flash.so").write_text("library")
    assert source.describe("flash-attn", str(tree)).identity == before
    assert not (fetch(str(tree), tmp_path / "out") / "build").exists()
    (tree / "csrc" / "x.cu").write_text("2")
    assert source.describe("flash-attn", str(tree)).identity != before


def test_a_tree_with_a_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "inside").write_text("1")
    (tree / "link").symlink_to("inside")
    source.describe("flash-attn", str(tree))
    (tree / "cutlass").symlink_to("/usr/include")
    with pytest.raises(ConfigurationError, match="outside of the source tree"):
        source.describe("flash-attn", str(tree))


def archive(path: Path, *members: tarfile.TarInfo | str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for each in members:
            member = tarfile.TarInfo(each) if isinstance(each, str) else each
            tar.addfile(member, io.BytesIO(b""))
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def test_an_archive_is_known_by_its_bytes_and_unpacked(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "f-1.tar.gz", "f-1/setup.py", "f-1/a/b.h", link("f-1/a/c.h", "../a/b.h")
    )
    assert source.describe("flash-attn", str(path)).kind is Kind.ARCHIVE
    tree = fetch(str(path), tmp_path / "out")
    assert (tree / "setup.py").is_file()
    assert (tree / "a" / "c.h").is_symlink()


@pytest.mark.parametrize(
    "member",
    [
        "/etc/cron.d/evil",
        "f-1/../../evil",
        link("f-1/evil", "../../etc/passwd"),
        link("f-1/evil", "/etc/passwd"),
        link("f-1/evil", "../outside", tarfile.LNKTYPE),
    ],
    ids=["absolute", "dots", "link", "absolute link", "hard link"],
)
def test_a_hostile_archive_is_refused_before_anything_is_written(
    tmp_path: Path, member: tarfile.TarInfo | str
) -> None:
    path = archive(tmp_path / "f-1.tar.gz", "f-1/setup.py", member)
    with pytest.raises(ConfigurationError, match="points outside of the archive"):
        fetch(str(path), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("text", ["main", "./nowhere", "2.8 .3", "https://example.org/x"])
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no source of flash-attn"):
        source.describe("flash-attn", text)


@pytest.mark.parametrize("text", ["2.8.3.post2", "==2.8.3.post2", "flash-attn==2.8.3.post2"])
def test_a_release_is_known_by_its_version(text: str) -> None:
    found = source.describe("flash-attn", text)
    assert (found.kind, found.identity) == (Kind.RELEASE, "2.8.3.post2")
    assert str(found) == "flash-attn==2.8.3.post2"


PATCH = "--- a/x.txt\n+++ b/x.txt\n@@ -1 +1 @@\n-one\n+two\n"


def test_a_patch_is_applied_also_within_somebodys_checkout(tmp_path: Path) -> None:
    repository(tmp_path / "checkout", {"x.txt": "one\n"})
    tree = tmp_path / "checkout" / "work" / "tree"
    tree.mkdir(parents=True)
    (tree / "x.txt").write_text("one\n")
    patch = tmp_path / "fix.patch"
    patch.write_text(PATCH)
    patching.apply([patch], tree)
    assert (tree / "x.txt").read_text() == "two\n"
    assert (tmp_path / "checkout" / "x.txt").read_text() == "one\n"
    with pytest.raises(ConfigurationError, match=r"fix.patch does not apply: patch failed: x.txt"):
        patching.apply([patch], tree)


def test_a_patch_cannot_reach_outside_of_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "x.txt").write_text("one\n")
    patch = tmp_path / "evil.patch"
    patch.write_text(PATCH.replace("a/x.txt", "a/../x.txt").replace("b/x.txt", "b/../x.txt"))
    with pytest.raises(ConfigurationError, match=r"evil\.patch does not apply"):
        patching.apply([patch], tree)
    assert (tmp_path / "x.txt").read_text() == "one\n"
