"""Tests of the view in which a command runs, with real mount namespaces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pinproof.judge import triage
from pinproof.plan.stage import Stage
from pinproof.run import read_only

#: Writes into each directory that it is told, says which it could, and ends with 7.
WRITE = """
import pathlib, sys
for directory in sys.argv[1:]:
    try:
        pathlib.Path(directory, "new").write_text("")
    except OSError as error:
        print(error.errno, end=" ")
    else:
        print("written", end=" ")
sys.exit(7)
"""

#: Becomes the rest of the command without the right to mount, on a machine with a driver.
POWERLESS = """
import ctypes, os, pathlib, sys
if "again" not in sys.argv:
    ctypes.CDLL(None).prctl(24, 21)  # PR_CAPBSET_DROP, CAP_SYS_ADMIN: gone by exec
    again = [sys.executable, "-c", sys.argv[1], sys.argv[1], "again", *sys.argv[2:]]
    os.execv(sys.executable, again)
from pinproof.run import read_only
read_only._DRIVERS = (pathlib.Path("/dev/null"),)
read_only.main(sys.argv[3:])
"""


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Directories: one that is closed, one inside of it that stays open, one of nobody."""
    made = {"closed": tmp_path / "a", "inside": tmp_path / "a" / "b", "other": tmp_path / "c"}
    for place in made.values():
        place.mkdir()
    return made


def writer(places: dict[str, Path]) -> list[str]:
    return [sys.executable, "-c", WRITE, *map(str, places.values())]


def test_a_command_cannot_write_what_is_closed_and_ends_as_it_ends(places: dict[str, Path]) -> None:
    closed = [places["closed"], places["closed"] / "not-there"]
    done = run(read_only.command(writer(places), closed, [places["inside"]]))
    if "stays writable" in done.stderr:
        pytest.skip("this machine makes no mount namespaces")
    assert (done.stdout.split(), done.returncode) == (["30", "written", "written"], 7)
    assert [path.name for path in places["closed"].iterdir()] == ["b"]
    (places["closed"] / "new").touch()  # it is closed to that command alone


def test_what_is_mounted_below_a_closed_directory_is_seen_and_closed_too(
    places: dict[str, Path],
) -> None:
    below = places["closed"] / "mounted"
    below.mkdir()
    look = f"import os; print(os.listdir({str(below)!r})){WRITE}"
    looked = read_only.command(
        [sys.executable, "-c", look, str(below)], [places["closed"]], [places["inside"]]
    )
    mount = 'mount -t tmpfs none "$0" && touch "$0/seen" && exec "$@"'
    words = ["sh", "-c", mount, str(below), *looked]
    for unshare in (["unshare", "--mount"], ["unshare", "-rm"]):
        if run([*unshare, "true"]).returncode == 0:
            done = run([*unshare, *words])
            break
    else:
        pytest.skip("this machine makes no mount namespaces")
    assert done.stdout.split() == ["['seen']", "30"], done.stderr


def test_without_the_right_to_mount_the_command_runs_and_that_is_said(
    places: dict[str, Path],
) -> None:
    words = [str(places["closed"]), "--", *writer(places)]
    done = run([sys.executable, "-c", POWERLESS, POWERLESS, *words])
    assert (done.stdout.split(), done.returncode) == (["written"] * 3, 7)
    assert done.stderr == "pinproof: what cells share stays writable to this one: EPERM\n"


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("code", ["EPERM", "EACCES", "EROFS", "ENOSPC", "ENOMEM"])
def test_what_it_says_is_never_taken_for_a_failure(code: str, stage: Stage) -> None:
    said = f"pinproof: what cells share stays writable to this one: {code}\n"
    assert triage.triage(said, stage) is None
