"""Requests that are answered side by side, from what smaller ones came to where that holds."""

import pytest
from wheels import make_index, make_wheel

from pinproof.locks import batch
from pinproof.locks.installer import Installer, find_uv
from pinproof.locks.lock import Request
from pinproof.locks.resolution import Resolution


@pytest.fixture
def tool(tmp_path):
    files = [make_wheel(tmp_path / "files", name, "1.0") for name in ("app", "lib")]
    env = {
        "UV_DEFAULT_INDEX": make_index(tmp_path / "simple", files),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_HTTP_RETRIES": "0",
    }
    return Installer(uv=find_uv(), env=env)


def solve(tool, *more):
    """Return the answers to a request and to one that asks for `more` too."""
    requests = {
        name: Request(product=product, harness=(), python="3.11")
        for name, product in (("small", ("app", "lib")), ("large", ("app", "lib", *more)))
    }
    return batch.solve(tool, requests, lambda text, done, total: None)


def test_what_a_part_was_solved_by_answers_the_whole(tool):
    answers = solve(tool, "lib<2")
    assert isinstance(answers["large"], Resolution)
    assert answers["large"].lock == answers["small"].lock


def test_a_package_that_is_asked_for_by_address_is_not_the_one_of_an_index(tool):
    with pytest.raises(batch.Unanswered) as caught:
        solve(tool, "lib @ http://127.0.0.1:9/lib-1.0-py3-none-any.whl")
    assert caught.value.question == "large"
