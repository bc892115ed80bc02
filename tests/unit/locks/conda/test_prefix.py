from pathlib import Path

import pytest

from pinproof.errors import ConfigurationError
from pinproof.locks.conda import prefix


def make(home: Path, text: str) -> None:
    with prefix.replacing(home):
        home.mkdir()
        (home / "file").write_text(text)


def fail(home: Path) -> None:
    with pytest.raises(FileExistsError), prefix.replacing(home):  # noqa: PT012 - the body fails
        home.mkdir()
        (home / "half").touch()
        home.mkdir()


def test_a_directory_of_somebody_else_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigurationError, match="is not empty, and no conda environment"):
        make(tmp_path / "victim", "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["victim", "thesis.txt"]


def test_a_file_is_no_place_for_an_environment(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(ConfigurationError, match="is no directory to use"):
        make(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "text"


def test_an_empty_directory_and_an_environment_of_ours_are_replaced_whole(tmp_path):
    home = tmp_path / "env"
    home.mkdir()
    with prefix.replacing(home):
        home.mkdir()
        (home / "older").touch()
    make(home, "new")
    assert sorted(path.name for path in home.iterdir()) == ["file", prefix.MARK]
    assert list(tmp_path.iterdir()) == [home], "nothing is left beside it"


def test_a_failure_leaves_nothing_where_there_was_nothing(tmp_path):
    fail(tmp_path / "env")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_older_environment_as_it_was(tmp_path):
    make(tmp_path / "env", "old")
    fail(tmp_path / "env")
    assert (tmp_path / "env" / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "env"]


def test_what_a_killed_install_left_is_not_deleted_and_what_it_set_aside_comes_back(tmp_path):
    home = tmp_path / "env"
    make(home, "old")
    home.rename(tmp_path / "kept")
    aside = tmp_path / ".env.pinproof"
    aside.mkdir()
    (tmp_path / "kept").rename(aside / "before")
    home.mkdir()
    (home / "half").touch()
    with pytest.raises(ConfigurationError, match="was left half made"):
        make(home, "new")
    assert (home / "half").is_file()
    (home / "half").unlink()
    home.rmdir()
    fail(home)
    assert (home / "file").read_text() == "old"
