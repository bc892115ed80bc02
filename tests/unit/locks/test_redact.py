import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.locks import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://user:pw@host/x now", "see https://****@host/x now"),
        ("git+https://token@host/x", "git+https://****@host/x"),
        ("https://user:p@ss@host/x", "https://****@host/x"),
        ("https://host/x@1.0", "https://host/x@1.0"),
        ("six @ https://host/six.whl", "six @ https://host/six.whl"),
        ("url (https://host/t/tk-1/c/linux-64/a)", "url (https://host/t/****/c/linux-64/a)"),
        ("https://u:p@host/a/t/tk-1/c", "https://****@host/a/t/****/c"),
        ("https://host/t/tk-1", "https://host/t/****"),
        ("/x/t/chan/linux-64", "/x/t/chan/linux-64"),
        ("file:///x/t/chan/linux-64", "file:///x/t/chan/linux-64"),
        ("https://host/x?a=1&token=s3&b=2", "https://host/x?a=1&token=****&b=2"),
        ("https://host/x?X-Amz-Signature=s3", "https://host/x?X-Amz-Signature=****"),
        ("https://host/x?page=2", "https://host/x?page=2"),
    ],
)
def test_secrets_in_addresses_are_hidden_and_nothing_else(text, shown):
    assert redact.redact(text) == shown
    assert redact.redact(shown) == shown
    assert redact.has_secret(text) == (text != shown)


@given(
    st.from_regex(r"[a-z0-9]{4,12}", fullmatch=True), st.from_regex(r"[!-~]{8,20}", fullmatch=True)
)
def test_no_password_survives(user, password):
    secret = "".join(letter for letter in password if letter not in "/\\'\"") + "Zq9"
    assert secret not in redact.redact(f"x https://{user}:{secret}@host.example/wheels y")


def test_an_address_without_its_secrets_names_the_same_place():
    text = "https://u:p@host/a/t/tk-1/c/linux-64/x-1-0.conda"
    assert redact.without_secrets(text) == "https://host/a/c/linux-64/x-1-0.conda"
    assert redact.without_user(text) == "https://host/a/t/tk-1/c/linux-64/x-1-0.conda"
