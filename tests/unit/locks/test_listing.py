"""Tests of the reader of an index's pages, on text and over real HTTP."""

import contextlib
import json
from html import escape
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightly_index import served

from pinproof.errors import ResolveError
from pinproof.locks import listing
from pinproof.locks.listing import File

PLACE = "https://index.example/nightly/cu130/torch/"
HTML, JSON = "text/html", "application/vnd.pypi.simple.v1+json"

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=40,
).filter(lambda name: name.strip(" ") == name and name not in (".", ".."))
FILES = st.builds(
    lambda name, digest, yanked, metadata: File(
        name=name,
        url=f"{PLACE}{quote(name)}",
        sha256=f"{digest:064x}" if digest else "",
        yanked=yanked,
        metadata=metadata,
    ),
    NAMES,
    st.integers(0, 2**256 - 1),
    st.sampled_from(["", "yes", 'a "reason" & <more>']),
    st.booleans(),
)


def html_of(files):
    links = []
    for file in files:
        sha256 = f"#sha256={file.sha256}" if file.sha256 else ""
        yanked = f' data-yanked="{escape(file.yanked)}"' if file.yanked else ""
        metadata = ' data-core-metadata="true"' if file.metadata else ""
        href = escape(quote(file.name)) + sha256
        links.append(f'<a href="./{href}"{yanked}{metadata}>{escape(file.name)}</a>')
    return "<!DOCTYPE html><html><body>" + "<br/>\n".join(links) + "</body></html>"


def json_of(files):
    return json.dumps(
        {
            "files": [
                {
                    "filename": file.name,
                    "url": quote(file.name),
                    "hashes": {"sha256": file.sha256} if file.sha256 else {},
                    "yanked": file.yanked or False,
                    "core-metadata": file.metadata,
                }
                for file in files
            ]
        }
    )


@given(st.lists(FILES, max_size=5))
def test_a_page_of_either_form_is_read_as_what_it_lists(files):
    assert list(listing.parse(html_of(files), HTML, PLACE)) == files
    assert list(listing.parse(json_of(files), JSON, PLACE)) == files


@given(st.text(max_size=300), st.sampled_from([HTML, JSON]))
def test_any_text_is_read_or_refused_as_a_page_that_cannot_be_understood(text, kind):
    with contextlib.suppress(ResolveError):  # any other error fails the test
        assert all(file.name for file in listing.parse(text, kind, PLACE))


@given(st.lists(FILES, min_size=1, max_size=3), st.data())
def test_a_page_that_is_cut_off_is_refused_and_never_read_as_a_shorter_one(files, data):
    text = html_of(files)
    cut = data.draw(st.integers(0, len(text) - len("</html>")))
    with pytest.raises(ResolveError):
        listing.parse(text[:cut], HTML, PLACE)


def test_links_are_taken_relative_to_the_base_of_the_page():
    text = '<html><head><base href="/files/"></head><body><a href="a.whl">a</a></body></html>'
    assert listing.parse(text, HTML, PLACE)[0].url == "https://index.example/files/a.whl"


@pytest.fixture
def web(tmp_path):
    with served(tmp_path) as address:
        yield tmp_path, address


def test_a_page_is_fetched_with_the_addresses_that_its_links_have_there(web):
    root, address = web
    (root / "torch").mkdir()
    (root / "torch" / "index.html").write_text('<html><a href="../torch%2B1.whl">t</a></html>')
    (found,) = listing.fetch(f"{address}/torch/")
    assert (found.name, found.url) == ("torch+1.whl", f"{address}/torch%2B1.whl")


def test_a_project_that_an_index_has_not_is_none(web):
    assert listing.fetch(f"{web[1]}/nothing/") is None


def test_a_directory_on_disk_is_an_index_too(tmp_path):
    (tmp_path / "index.html").write_text('<html><a href="a.whl">a</a></html>')
    assert listing.fetch(f"{tmp_path.as_uri()}/")[0].name == "a.whl"
    assert listing.fetch(f"{tmp_path.as_uri()}/nothing/") is None


def test_an_index_that_cannot_be_reached_is_told_without_its_password():
    with pytest.raises(ResolveError, match="cannot be read") as caught:
        listing.fetch("http://user:secret@127.0.0.1:9/torch/")
    assert not caught.value.conflict
    assert "secret" not in str(caught.value)
    assert "check the network" in caught.value.remedy
