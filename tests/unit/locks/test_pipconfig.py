import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.locks import pipconfig
from pinproof.locks.pipconfig import PipConfig


def test_a_later_section_of_the_listing_wins_and_the_environment_wins_over_all():
    listing = "\n".join(
        [
            ":env:.find-links='/env'",
            "install.index-url='https://install.example/simple'",
            "global.index-url='https://global.example/simple'",
            "global.find-links='/global'",
            "download.index-url='https://download.example/simple'",
        ]
    )
    assert pipconfig.parse(listing) == {
        "index-url": "https://install.example/simple",
        "find-links": "/env",
    }


def test_values_on_several_lines_are_read():
    found = pipconfig.parse(r"global.extra-index-url='\nhttps://a.example\nhttps://b.example'")
    assert found["extra-index-url"].split() == ["https://a.example", "https://b.example"]


@given(st.text())
def test_any_listing_is_read_without_an_error(text):
    assert isinstance(pipconfig.parse(text), dict)


def read(tmp_path, text, **variables):
    """Read the configuration of a real pip that knows only one file."""
    file = tmp_path / "pip.conf"
    file.write_text(text)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return pipconfig.read({**clean, "PIP_CONFIG_FILE": str(file), **variables})


def test_what_pip_is_configured_with_is_found(tmp_path):
    text = "[global]\ncert = /c.pem\n[install]\nindex-url = https://mirror.example/simple\n"
    found = read(tmp_path, text)
    assert found.index_url == "https://mirror.example/simple"
    assert found.cert == "/c.pem"


def test_the_environment_wins_over_the_file_even_to_switch_a_source_off(tmp_path):
    text = "[global]\nextra-index-url = https://a.example\nfind-links = /wheels\n"
    found = read(tmp_path, text, PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="/x /y", PIP_NO_INDEX="1")
    assert found.extra_index_urls == ()
    assert found.find_links == ("/x", "/y")
    assert found.no_index


def test_a_constraint_of_the_machine_goes_nowhere(tmp_path):
    found = read(tmp_path, "[global]\nconstraint = /capped.txt\n", PIP_CONSTRAINT="/capped.txt")
    assert "/capped.txt" not in str([*found.uv_env().values(), *found.pip_env().values()])


def test_several_indexes_are_all_considered():
    one = PipConfig(index_url="https://a.example")
    two = PipConfig(extra_index_urls=("https://a.example", "https://b.example"))
    assert "UV_INDEX_STRATEGY" not in one.uv_env()
    assert two.uv_env()["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert two.uv_env()["UV_INDEX"] == "https://a.example https://b.example"


def test_the_kinds_of_source_are_told_without_an_address():
    found = PipConfig(
        index_url="https://user:secret@mirror.example/simple",
        extra_index_urls=("https://a.example",),
        find_links=("/x", "/y"),
    )
    assert found.kinds() == ("a mirror", "1 extra index", "2 places of wheels")
    assert "secret" not in repr(found)
    assert "mirror.example" not in repr(found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://user:pw@host/x now", "see https://****@host/x now"),
        ("git+https://token@host/x", "git+https://****@host/x"),
        ("https://user:p@ss@host/x", "https://****@host/x"),
        ("https://host/x@1.0", "https://host/x@1.0"),
        ("six @ https://host/six.whl", "six @ https://host/six.whl"),
    ],
)
def test_users_and_passwords_in_addresses_are_hidden(text, shown):
    assert pipconfig.redact(text) == shown


@given(
    st.from_regex(r"[a-z0-9]{4,12}", fullmatch=True), st.from_regex(r"[!-~]{8,20}", fullmatch=True)
)
def test_no_password_survives(user, password):
    secret = "".join(letter for letter in password if letter not in "/\\'\"") + "Zq9"
    assert secret not in pipconfig.redact(f"x https://{user}:{secret}@host.example/simple y")
