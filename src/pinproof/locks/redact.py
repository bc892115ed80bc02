"""Secrets in addresses: passwords, tokens of conda channels, secret values of queries."""

from __future__ import annotations

import re

_HIDDEN = "****"
_SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)"
_USER = re.compile(_SCHEME + r"[^/\s'\"@]*(?:@[^/\s'\"@]*)*@")

#: ``/t/TOKEN`` as anaconda.org and its like take it; of a local channel "t" is a directory.
_TOKEN = re.compile(
    r"(?P<before>(?<![A-Za-z0-9+.-])(?!file:)[A-Za-z][A-Za-z0-9+.-]*://[^/\s'\"]+(?:/[^/\s'\"]+)*?)"
    r"/t/[^/\s'\"?#),]+",
    re.IGNORECASE,
)
_QUERY = re.compile(
    r"(?P<name>[?&][\w.-]*(?:token|secret|passw(?:or)?d|signature|credential|key|auth|sig)[\w.-]*=)"
    r"[^&#\s'\"),]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return `text` with ``****`` in the place of every secret of an address in it."""
    text = _USER.sub(rf"\g<scheme>{_HIDDEN}@", text)
    text = _TOKEN.sub(rf"\g<before>/t/{_HIDDEN}", text)
    return _QUERY.sub(rf"\g<name>{_HIDDEN}", text)


def without_user(address: str) -> str:
    """Return `address` without the user and password in it."""
    return _USER.sub(r"\g<scheme>", address)


def without_secrets(address: str) -> str:
    """Return `address` without user, password and token of a channel: whoever has them adds them.

    A secret in the query is left out with its name.
    """
    return _QUERY.sub("", _TOKEN.sub(r"\g<before>", without_user(address)))


def has_secret(address: str) -> bool:
    """Say if a user, a token or another secret stands in `address`."""
    return without_secrets(address) != address
