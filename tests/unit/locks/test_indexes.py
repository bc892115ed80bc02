"""Addresses of files: whose keys they carry, and what is written down of them."""

import pytest

from pinproof.locks.indexes import Places

PLACES = Places(places={"nightly": "https://me:secret@host.example/whl/nightly/?key=1"})
WHEEL = "cu130/torch-1-py3-none-any.whl"


@pytest.mark.parametrize(
    "url",
    [
        f"https://host.example/whl/nightly/{WHEEL}",
        f"https://me:secret@host.example/whl/nightly/{WHEEL}?X-Signature=secret#sha256=0",
    ],
)
def test_of_a_file_the_place_below_its_index_is_written_down_and_no_key(url):
    assert PLACES.relative("nightly/cu130", url) == WHEEL


def test_of_a_file_elsewhere_the_name_alone_is_written_down():
    url = f"https://store.example/a/{WHEEL}?X-Signature=a/secret"
    assert PLACES.relative("nightly/cu130", url) == "torch-1-py3-none-any.whl"


@pytest.mark.parametrize(
    ("url", "carried"),
    [
        ("https://host.example/a.whl.metadata", True),
        ("https://host.example:8443/a.whl.metadata", False),
        ("http://host.example/a.whl.metadata", False),
        ("https://other.example/a.whl.metadata", False),
    ],
)
def test_the_user_of_an_index_goes_to_its_own_server_alone(url, carried):
    found = PLACES.with_user("nightly/cu130", url)
    assert found == (url.replace("//", "//me:secret@") if carried else url)
