"""The committed locks are whole, and are those of the shipped matrices as they are now."""

import re
from pathlib import Path

import pytest

from pinproof.locks import lockfile
from pinproof.locks.renew import Order, Survey

ROOT = Path(__file__).parents[3]
MATRICES = sorted(
    path.name.removesuffix(".lock.toml") for path in ROOT.glob("lockfiles/*.lock.toml")
)


def test_there_are_some():
    assert MATRICES == ["blackwell-release", "cpu", "hopper"]


@pytest.mark.parametrize("name", MATRICES)
def test_a_committed_lock_is_for_what_its_matrix_asks_now(name):
    known = lockfile.load(lockfile.path_of(ROOT / "matrix.toml", name))
    survey = Survey(Order(matrix_file=ROOT / "matrix.toml", matrix=name), known, ("", ""))
    wishes = {wish.place: wish.key for wish in survey.wishes(anew=False)}
    assert wishes == {entry.place: entry.request for entry in known.entries}, (
        f"the matrix asks for something else now; renew it: nox -s lock -- --matrix {name}"
    )


@pytest.mark.parametrize("name", MATRICES)
def test_a_committed_lock_holds_no_address(name):
    files = [ROOT / "lockfiles" / f"{name}.lock.toml", *ROOT.glob(f"lockfiles/{name}/*.txt")]
    assert not [file for file in files if re.search(r"\w://|/(opt|tmp|root)/", file.read_text())]


@pytest.mark.parametrize("name", MATRICES)
def test_every_file_of_pins_is_one_of_the_lock(name):
    known = lockfile.load(lockfile.path_of(ROOT / "matrix.toml", name))
    assert {path.name for path in ROOT.glob(f"lockfiles/{name}/*.txt")} == set(known.locks)
