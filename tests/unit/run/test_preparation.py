"""What cells ask for is said of stored commits where nobody is asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import empty_cells
import pytest

from pinproof.builds import declared, lookups
from pinproof.matrix import selection
from pinproof.options import Options
from pinproof.plan.recipe import CellWork
from pinproof.run.preparation import Preparation

FILES = {
    "requirements/cuda.txt": "numpy\n",
    "pyproject.toml": '[build-system]\nrequires = ["cmake"]\n',
    "CMakeLists.txt": "",
}


def git(tree: Path, *words: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=n@n")
    done = subprocess.run(["git", "-C", tree, *who, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(path: Path) -> str:
    """Make a repository with one commit, and return that."""
    for name, text in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=one")
    return git(path, "rev-parse", "HEAD")


def matrix(directory: Path, vllm: str, attention: str) -> None:
    (directory / "matrix.toml").write_text(
        f"""
        format = 1
        [targets.sm_90]
        [[matrix]]
        name = "v"
        target = "sm_90"
        default = true
        axes = {{ torch = ["2.14.1"], cuda = ["13.0"], vllm = ["{vllm}"] }}
        [[matrix.overrides]]
        select = 'vllm.kind == "git"'
        attention = "{attention}"
        """
    )


def prepared(directory: Path, *, stored: bool = False, **more: object) -> Preparation:
    """Return a preparation as a new process has it."""
    declared._of.cache_clear()
    lookups._attention.cache_clear()
    options = Options(
        matrix_file=directory / "matrix.toml",
        store=directory / ".pinproof",
        **more,  # type: ignore[arg-type]
    )
    chosen = selection.make(options, empty_cells.H100)
    return Preparation(options, chosen, empty_cells.H100, stored=stored)


def only(made: Preparation) -> CellWork:
    (work,) = made.asked().values()
    return work


def commits(work: CellWork) -> tuple[str, str]:
    assert work.attention is not None
    return work.commits["vllm"], work.attention.identity


def test_stored_evidence_is_that_of_the_commits_of_the_last_run_and_nobody_is_asked(
    tmp_path: Path,
) -> None:
    first = repository(tmp_path / "vllm"), repository(tmp_path / "flash")
    url = f"git+{tmp_path.as_uri()}"
    matrix(tmp_path, f"{url}/vllm@main", f"{url}/flash@main")
    run = only(prepared(tmp_path))
    assert commits(run) == first
    for name in ("vllm", "flash"):
        git(tmp_path / name, "commit", "--quiet", "--allow-empty", "--message=two")
    # A plan of the new commits is no run of them.
    assert set(commits(only(prepared(tmp_path, dry_run=True)))).isdisjoint(first)
    for name in ("vllm", "flash"):
        (tmp_path / name).rename(tmp_path / f"away-{name}")
    recalled = only(prepared(tmp_path, stored=True))
    assert commits(recalled) == first
    assert recalled.request == run.request


@pytest.mark.parametrize("more", [{"offline": True}, {"stored": True}])
def test_what_no_run_has_told_is_the_problem_of_its_cell_and_git_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, bool]
) -> None:
    url = "git+https://127.0.0.1:9/x"
    matrix(tmp_path, f"{url}/vllm@main", f"{url}/flash@main")
    made = prepared(tmp_path, **more)
    monkeypatch.setenv("PATH", "")  # whoever starts git now is told that it is not there
    assert made.asked() == {}
    (problem,) = made.problems.values()
    assert problem.outcome == "infra"
    assert "nothing at hand says which commit vllm" in problem.reason
