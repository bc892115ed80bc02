"""What an index lists of one project: its files, read from a page of PEP 503 or PEP 691.

Read by ourselves, since a nightly is named by its day: no specifier that pip or uv knows says
"the third newest day on which there is a wheel for this Python".
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from pinproof.errors import ResolveError
from pinproof.evidence.store import disk_error
from pinproof.locks.redact import redact

#: What an index is asked for: JSON where it has it.
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html"

#: A page of ten thousand wheels has about 5 MB; more is no listing.
LARGEST_PAGE = 50_000_000

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of a project. ``url`` has no fragment, ``sha256`` is "" where the page has none.

    ``yanked`` is why it was withdrawn ("yes" without a reason), "" where it was not. ``metadata``
    says if the index serves the wheel's METADATA beside it (PEP 658).
    """

    name: str
    url: str
    sha256: str = ""
    yanked: str = ""
    metadata: bool = False


def parse(text: str, kind: str, place: str) -> tuple[File, ...]:
    """Return the files on a page; `kind` is its Content-Type, `place` where it was got.

    Raises ResolveError for a page that is no listing: then nothing is known of the project.
    """
    if "json" in kind:
        return tuple(_from_json(text, place))
    page = _Page()
    page.feed(text)
    page.close()
    if not page.is_html or page.open:
        raise _broken(place, "the page is cut off, or is no listing of files")
    found = (_of_link(link, urljoin(place, page.base)) for link in page.links)
    return tuple(each for each in found if each is not None)


def fetch(place: str, *, cert: str = "", timeout: float = 60) -> tuple[File, ...] | None:
    """Return what the page at `place`, which ends with "/", lists; None where there is none.

    `cert` is a file of certificates that are trusted, "" for the system's. Raises ResolveError
    where the index cannot be reached or its page cannot be read.
    """
    found = read(place, accept=ACCEPT, cert=cert, timeout=timeout)
    return None if found is None else parse(*found)


def read(
    place: str, *, accept: str = "*/*", cert: str = "", timeout: float = 60
) -> tuple[str, str, str] | None:
    """Return text, Content-Type and final address of `place`; None where there is nothing.

    Raises ResolveError where it cannot be reached.
    """
    try:
        with _opened(place, accept, cert, timeout) as answer:
            body = answer.read(LARGEST_PAGE + 1)
            kind, url = answer.headers.get("Content-Type", "text/html"), answer.geturl()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (403, 404, 410):  # object stores say 403 of what is not there
            return None
        raise _unreachable(place, f"it answered {error.code} {error.reason}") from None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # URLError and HTTPException's relatives among them
        if isinstance(getattr(error, "reason", None), FileNotFoundError):
            return None
        raise _unreachable(place, str(getattr(error, "reason", error))) from None
    if len(body) > LARGEST_PAGE:
        raise _broken(place, f"the page is larger than {LARGEST_PAGE:,} bytes")
    try:
        return body.decode("utf-8"), kind, url if _is_web(place) else place
    except UnicodeDecodeError:
        raise _broken(place, "the page is not UTF-8") from None


def save(place: str, into: Path, *, cert: str = "", timeout: float = 60) -> None:
    """Write the bytes of the file at `place` to `into`; whose they are the caller has to check.

    Raises ResolveError where it cannot be fetched, InfrastructureError where the disk refuses.
    """
    try:
        stream = into.open("xb")
    except OSError as error:
        raise disk_error(into, error) from None
    try:
        with stream, _opened(place, "*/*", cert, timeout) as answer:
            shutil.copyfileobj(answer, stream, 2**20)
    except urllib.error.HTTPError as error:
        error.close()
        raise _unreachable(place, f"it answered {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise _unreachable(place, str(getattr(error, "reason", error))) from None


def _opened(place: str, accept: str, cert: str, timeout: float) -> Any:
    request = _request(place, accept)
    context = ssl.create_default_context(cafile=cert or None) if _is_web(place) else None
    return urllib.request.urlopen(request, timeout=timeout, context=context)  # noqa: S310


class _Page(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[Mapping[str, str | None]] = []
        self.base = ""
        self.is_html = False
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.is_html = self.is_html or tag in ("html", "body", "head", "a")
        self.open = self.open or tag == "html"
        known = dict(attrs)
        if tag == "a" and known.get("href"):
            self.links.append(known)
        elif tag == "base" and not self.base:
            self.base = known.get("href") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "html":
            self.open = False


def _of_link(link: Mapping[str, str | None], base: str) -> File | None:
    try:
        url, fragment = urldefrag(urljoin(base, link["href"] or ""))
        name = unquote(urlsplit(url).path).rpartition("/")[2]
    except ValueError:  # an address that is none
        return None
    if not name:
        return None
    sha256 = fragment.removeprefix("sha256=").lower()
    yanked = "data-yanked" in link
    return File(
        name=name,
        url=url,
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
        yanked=(link["data-yanked"] or "yes") if yanked else "",
        metadata="data-core-metadata" in link or "data-dist-info-metadata" in link,
    )


def _from_json(text: str, place: str) -> Iterator[File]:
    try:
        document: Any = json.loads(text)
        for each in document["files"]:
            yanked = each.get("yanked", False)
            sha256 = str(each.get("hashes", {}).get("sha256", "")).lower()
            yield File(
                name=str(each["filename"]),
                url=urldefrag(urljoin(place, each["url"]))[0],
                sha256=sha256 if _SHA256.fullmatch(sha256) else "",
                yanked=(yanked if isinstance(yanked, str) and yanked else "yes") if yanked else "",
                metadata=bool(each.get("core-metadata") or each.get("dist-info-metadata")),
            )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _broken(place, "the page is no JSON listing of files (PEP 691)") from None


def _request(place: str, accept: str) -> urllib.request.Request:
    """Return the request; a user and a password in the address become a header."""
    parts = urlsplit(place)
    user, _, host = parts.netloc.rpartition("@")
    clean = urlunsplit(parts._replace(netloc=host))
    if parts.scheme == "file" and clean.endswith("/"):
        clean += "index.html"
    request = urllib.request.Request(clean, headers={"Accept": accept})  # noqa: S310
    if user:
        word = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {word}")
    return request


def _is_web(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _unreachable(place: str, why: str) -> ResolveError:
    return ResolveError(
        f"{redact(place)} cannot be read",
        conflict=False,
        cause=redact(why)[:300],
        remedy="check the network and the address of the index, then run again",
    )


def _broken(place: str, why: str) -> ResolveError:
    return ResolveError(
        f"{redact(place)} cannot be understood",
        conflict=False,
        cause=why,
        remedy="run again in a while; if it stays so, the index is broken or the address is wrong",
    )
