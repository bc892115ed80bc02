"""Tests of which wheel a nightly stands for."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.errors import ResolveError
from pinproof.locks import nightly
from pinproof.locks.listing import File
from pinproof.locks.nightly import Wanted
from pinproof.matrix import axis

WANTED = Wanted(build="cu130", python="3.11", platform="x86_64-manylinux_2_28")
NEWEST = date(2026, 11, 23)


def wheel(day, *, build="cu130", tag="cp311-cp311-manylinux_2_28_x86_64", base="2.17.0", **more):
    name = f"torch-{base}.dev{day:%Y%m%d}+{build}-{tag}.whl"
    return File(name=name, url=f"https://index.example/{name}", **{"sha256": "0" * 64, **more})


def choose(text, files, problem=lambda file: ""):
    return nightly.choose(axis.parse("torch", text), files, WANTED, problem)


def back(number):
    return NEWEST - timedelta(days=number)


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 8))
def test_nightly_n_is_the_nth_of_the_days_that_have_a_wheel(days, number):
    files = [wheel(back(day)) for day in days]
    ordered = sorted(days)
    text = f"nightly-{number}" if number else "nightly"
    if number >= len(ordered):
        with pytest.raises(ResolveError, match=f"holds {len(ordered)} nightlies"):
            choose(text, files)
    else:
        found = choose(text, files)
        assert found.file == wheel(back(ordered[number]))
        gaps = ordered[number] - ordered[0] + 1 - (number + 1)
        assert bool(found.notes) == bool(gaps)


def test_a_day_that_is_asked_for_must_be_there_and_the_nearest_are_named():
    files = [wheel(back(0)), wheel(back(4)), wheel(back(9))]
    assert choose(f"nightly@{back(4)}", files).version == "2.17.0.dev20261119+cu130"
    with pytest.raises(ResolveError, match="no nightly of that day") as caught:
        choose(f"nightly@{back(3)}", files)
    assert caught.value.conflict
    assert caught.value.remedy == f"name torch nightly@{back(4)} or torch nightly@{back(0)}"


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (wheel(NEWEST, yanked="broken attention"), "withdrawn (yanked): broken attention"),
        (wheel(NEWEST, sha256=""), "gives no sha256"),
        (wheel(NEWEST, tag="cp312-cp312-manylinux_2_28_x86_64"), "no wheel for Python 3.11"),
        (wheel(NEWEST, tag="cp311-cp311-manylinux_2_28_aarch64"), "no wheel for Python 3.11"),
        (wheel(NEWEST, tag="cp311-cp311-manylinux_2_39_x86_64"), "no wheel for Python 3.11"),
    ],
)
def test_a_wheel_that_is_of_no_use_is_passed_over_and_the_note_says_why(file, why):
    found = choose("nightly", [file, wheel(back(1))])
    assert found.file == wheel(back(1))
    assert str(NEWEST) in found.notes[0]
    assert why in found.notes[0]
    with pytest.raises(ResolveError) as caught:
        choose(f"nightly@{NEWEST}", [file, wheel(back(1))])
    assert why in caught.value.cause


def test_another_build_is_never_taken():
    with pytest.raises(ResolveError, match="holds 0 nightlies for cu130") as caught:
        choose("nightly", [wheel(NEWEST, build="cu126"), wheel(NEWEST, build="cpu")])
    assert "no nightly of that build at all" in caught.value.cause


def test_a_day_whose_companion_is_missing_is_passed_over():
    missing = wheel(NEWEST)
    found = choose(
        "nightly",
        [missing, wheel(back(1))],
        lambda file: "no triton" if file == missing else "",
    )
    assert found.file == wheel(back(1))
    assert "(no triton)" in found.notes[0]


def test_of_two_versions_of_a_day_the_higher_one_is_taken():
    files = [wheel(NEWEST), wheel(NEWEST, base="2.18.0")]
    assert choose("nightly", files).version == "2.18.0.dev20261123+cu130"


def test_what_is_no_nightly_on_the_page_is_looked_past():
    release = File(name="torch-2.16.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl", url="u")
    odd = File(name="not a wheel", url="u")
    broken = wheel(NEWEST).name.replace("20261123", "20261399")
    files = [release, odd, File(name=broken, url="u", sha256="0" * 64), wheel(back(2))]
    assert choose("nightly", files).file == wheel(back(2))
