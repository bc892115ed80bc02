"""Axis values: what they mean, and what they may not hold."""

from __future__ import annotations

import pytest
from packaging.version import Version

from pinproof.errors import ConfigurationError
from pinproof.matrix import axis
from pinproof.matrix.axis import Kind

SHA = "1234567890abcdef1234567890abcdef12345678"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("torch", "2.13.0", Kind.VERSION),
        ("torch", "2.16.0.dev20261101", Kind.VERSION),
        ("torch", "2.11.0+cu130", Kind.VERSION),
        ("flash-attn", "2.8.3.post2", Kind.VERSION),
        ("vllm", ">=0.28,<0.30", Kind.SPECIFIER),
        ("vllm", "==0.28.*", Kind.SPECIFIER),
        ("torch", "nightly", Kind.NIGHTLY),
        ("torch", "nightly-3", Kind.NIGHTLY),
        ("vllm", "git:main", Kind.GIT),
        ("triton", "bundled", Kind.BUNDLED),
        ("torch", "installed", Kind.INSTALLED),
        ("vllm", "none", Kind.NONE),
    ],
)
def test_a_value_is_of_the_kind_that_its_text_shows(name: str, text: str, kind: Kind) -> None:
    assert axis.parse(name, text).kind is kind


def test_a_version_is_split_into_its_public_and_its_local_part() -> None:
    value = axis.parse("torch", "2.11.0+cu130")
    assert value.version == Version("2.11.0")
    assert value.local == "cu130"


def test_a_nightly_says_how_many_days_back_it_is() -> None:
    assert axis.parse("torch", "nightly").back == 0
    assert axis.parse("torch", "nightly-12").back == 12


def test_a_nightly_may_be_named_by_its_day() -> None:
    value = axis.parse("torch", "nightly@2026-11-20")
    assert (value.kind, value.day, value.back) == (Kind.NIGHTLY, "2026-11-20", 0)
    with pytest.raises(ConfigurationError, match="names no day of the calendar"):
        axis.parse("torch", "nightly@2026-02-30")


@pytest.mark.parametrize(
    ("text", "repository", "ref"),
    [
        ("git:main", axis.REPOSITORIES["flash-attn"], "main"),
        (f"git:{SHA}", axis.REPOSITORIES["flash-attn"], SHA),
        ("git:release/v2.8", axis.REPOSITORIES["flash-attn"], "release/v2.8"),
        ("git+https://example.org/a/b.git@v1.0-rc1", "https://example.org/a/b.git", "v1.0-rc1"),
        ("git+file:///srv/fa@main", "file:///srv/fa", "main"),
    ],
)
def test_a_git_value_names_a_repository_and_a_reference(
    text: str, repository: str, ref: str
) -> None:
    value = axis.parse("flash-attn", text)
    assert (value.repository, value.ref) == (repository, ref)


@pytest.mark.parametrize(
    "text",
    [
        "git:",
        "git:main;reboot",
        "git:$(id)",
        "git:`id`",
        "git:a b",
        "git:a\nb",
        "git:main\n",
        "git:--upload-pack=x",
        "git:-x",
        "git:a..b",
        "git:../x",
        "git:a/",
        "git:a//b",
        "git:a.lock",
        "git:a@{1}",
        "git:é",
        "git+https://example.org/a",
        "git+https://example.org/a;b@main",
        "git+https://example.org/../a@main",
        "git+https://user:pass@example.org/a@main",
        "git+ssh://example.org/a@main",
        "git+ext::sh -c id@main",
        "git+file://relative@main",
    ],
)
def test_a_git_value_with_characters_for_a_shell_or_git_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        axis.parse("vllm", text)


@pytest.mark.parametrize(
    "text",
    ["", " 2.13.0", "2.13.0\n", "v2.13", "2.13.O", "2.13.*", "latest", "nightly-0", "Nightly",
     "nightly@20261120", "nightly-3@2026-11-20",
     "9" * 5000, "²", "2.13\0", ">=2.8;id", ">=", "~=2"],
)  # fmt: skip
def test_a_version_that_does_not_parse_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        axis.parse("torch", text)


def test_a_misspelt_word_is_answered_with_the_word_that_is_meant() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'bundled'"):
        axis.parse("triton", "bundeld")
    with pytest.raises(ConfigurationError, match="Did you mean 'flash-attn'"):
        axis.parse("flash-atn", "2.8.3")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("torch", "x", "a version, a specifier, nightly, nightly-N, nightly@DAY or installed"),
        ("python", "3.x", "'3.x' is not a version."),
        ("flash-attn", "x", "a version, a specifier, git:REF, installed or none"),
        ("flash-attn", "git:", "'git:' names no reference"),
    ],
)
def test_a_value_that_does_not_parse_is_told_what_its_axis_takes(
    name: str, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        axis.parse(name, text)
    assert told in caught.value.what


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("torch", "none"),
        ("python", "none"),
        ("torch", "git:main"),
        ("vllm", "bundled"),
        ("cuda", "nightly"),
        ("flash-attn", "nightly"),
    ],
)
def test_a_kind_that_an_axis_cannot_have_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be"):
        axis.parse(name, text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2.13", "2.13.0", True),
        ("2.13.0.dev1", "2.13.dev1", True),
        ("2.10", "2.1", False),
        ("2.13.0", "2.13.0+cu130", False),
        ("2.0.1", "2.1", False),
        (">=2.8,<2.9", "<2.9,>=2.8", True),
    ],
)
def test_two_spellings_of_one_value_have_one_key(one: str, other: str, same: bool) -> None:
    assert (axis.parse("torch", one).key == axis.parse("torch", other).key) is same


def test_what_goes_without_saying_adds_nothing_to_the_meaning() -> None:
    said = {"torch": "2.13", "triton": "bundled", "vllm": "none"}
    assert axis.meaning(said.items()) == axis.meaning([("torch", "2.13.0")])
    assert axis.meaning([("triton", "3.6.0")]) != axis.meaning([("triton", "bundled")])


def test_dimensions_follow_the_canonical_order_whatever_the_order_of_the_table() -> None:
    axes = {"vllm": ["none"], "torch": ["2.8.0", "2.9.1"]}
    assert axis.dimensions(axes) == (
        ((("torch", "2.8.0"),), (("torch", "2.9.1"),)),
        ((("vllm", "none"),),),
    )


def test_axes_of_one_group_move_together() -> None:
    axes = {"torch": ["2.8.0", "2.11.0"], "cuda": ["12.8", "13.0"]}
    (dimension,) = axis.dimensions(axes, [("torch", "cuda")])
    assert dimension == (
        (("torch", "2.8.0"), ("cuda", "12.8")),
        (("torch", "2.11.0"), ("cuda", "13.0")),
    )
