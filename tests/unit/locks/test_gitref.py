"""Tests of git references, against a real repository."""

import subprocess
from pathlib import Path

import pytest

from pinproof.errors import ResolveError
from pinproof.locks import gitref
from pinproof.locks.gitref import Reach
from pinproof.matrix import axis


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    home = tmp_path / "repository"
    home.mkdir()
    git(home, "init", "--quiet", "--initial-branch", "main")
    git(home, "commit", "--quiet", "--allow-empty", "--message", "first")
    git(home, "tag", "--annotate", "v1", "--message", "one")
    git(home, "commit", "--quiet", "--allow-empty", "--message", "second")
    return home


def git(home: Path, *words: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "tag.gpgsign=false")
    done = subprocess.run(
        ["git", *who, *words], cwd=home, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def value(repository: Path, ref: str) -> axis.Value:
    return axis.parse("flash-attn", f"git+{repository.as_uri()}@{ref}")


def test_a_branch_is_the_commit_that_it_names_now(repository: Path) -> None:
    assert gitref.commit(value(repository, "main")) == git(repository, "rev-parse", "main")


def test_an_annotated_tag_is_the_commit_behind_it(repository: Path) -> None:
    assert gitref.commit(value(repository, "v1")) == git(repository, "rev-parse", "main~1")


def test_a_full_commit_is_not_asked_for(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert gitref.commit(value(tmp_path / "nowhere", commit)) == commit


def test_a_reference_that_is_not_there_speaks_against_the_combination(repository: Path) -> None:
    with pytest.raises(ResolveError, match="has no reference v9") as caught:
        gitref.commit(value(repository, "v9"))
    assert caught.value.conflict


def test_a_repository_that_does_not_answer_says_nothing_of_the_combination(tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match="could not be resolved") as caught:
        gitref.commit(value(tmp_path / "nowhere", "main"))
    assert not caught.value.conflict


def test_without_a_network_a_repository_of_this_machine_is_asked_and_no_other(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = axis.parse("flash-attn", "git+https://127.0.0.1:9/flash-attention@main")
    here = value(repository, "main")
    assert gitref.commit(here, Reach.HERE) == git(repository, "rev-parse", "main")
    monkeypatch.setenv("PATH", "")  # whoever starts git now is told that it is not there
    for asked, reach in ((there, Reach.HERE), (there, Reach.NONE), (here, Reach.NONE)):
        with pytest.raises(ResolveError, match="nothing at hand says which commit") as caught:
            gitref.commit(asked, reach)
        assert not caught.value.conflict
