import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.errors import ConfigurationError, ResolveError
from pinproof.locks import lock as locks
from pinproof.locks.lock import Lock, Pin, Request, Wheel
from pinproof.matrix.cell import Cell
from pinproof.matrix.matrixfile import Settings


def cell(target="cpu", **axes):
    pairs = tuple((name.replace("_", "-"), text) for name, text in axes.items())
    return Cell(id=f"{target}-000000", matrix="m", target=target, axes=pairs)


def settings(requirements=(), without=()):
    return Settings(
        backend="uv",
        profile="stock",
        env=(),
        build_env=(),
        patches=(),
        requirements=tuple(requirements),
        without=tuple(without),
        timeouts=(),
        exclude_newer="",
    )


def ask(this, narrowed=(), *, requirements=(), without=(), **more):
    return locks.request(this, settings(requirements, without), narrowed, python="3.11", **more)


@pytest.mark.parametrize(
    ("axes", "product"),
    [
        ({"torch": "2.13.0"}, ("torch==2.13.0",)),
        ({"torch": ">=2.9,<3"}, ("torch>=2.9,<3",)),
        ({"torch": "2.13.0", "triton": "3.6.0"}, ("torch==2.13.0", "triton==3.6.0")),
        ({"torch": "2.13.0", "triton": "bundled", "vllm": "none"}, ("torch==2.13.0",)),
        ({"torch": "2.11.0", "vllm": "0.24.0"}, ("torch==2.11.0", "vllm==0.24.0")),
        ({"torch": "nightly"}, ("torch>=0.dev0",)),
    ],
)
def test_an_axis_value_becomes_the_requirement_that_it_means(axes, product):
    assert ask(cell(**axes)).product == product


@pytest.mark.parametrize(
    ("this", "build"),
    [
        (cell(torch="2.13.0"), "cpu"),
        (cell("sm_90", torch="2.13.0"), "cuda"),
        (cell("sm_120", torch="2.13.0", cuda="13.0"), "cu130"),
        (cell("sm_120", torch="2.8.0", cuda="12.8"), "cu128"),
    ],
)
def test_the_target_and_the_cuda_axis_choose_the_build_of_torch(this, build):
    assert ask(this).torch == build


def test_a_rule_narrows_what_is_installed_and_adds_nothing():
    found = ask(cell(torch="2.13.0"), ("numpy<2.4",), requirements=("einops",))
    assert found.product == ("torch==2.13.0", "einops")
    assert found.constraints == ("numpy<2.4",)


def test_a_built_wheel_stands_for_its_axis():
    wheel = Wheel(path="/b/flash_attn-2.8.3+sm120-cp311-cp311-linux_x86_64.whl", sha256="0" * 64)
    found = ask(cell(torch="2.13.0", flash_attn="git:main"), wheels=[wheel])
    assert found.product == ("torch==2.13.0", "flash-attn==2.8.3+sm120")
    assert found.wheels == (wheel,)


@pytest.mark.parametrize(
    ("axes", "remedy"),
    [
        ({"torch": "2.13.0", "flash_attn": "git:main"}, "build its wheel"),
        ({"torch": "nightly-3"}, "lock the matrix"),
        ({"torch": "installed"}, 'backend = "system"'),
    ],
)
def test_what_cannot_be_resolved_says_what_to_do(axes, remedy):
    with pytest.raises(ConfigurationError) as caught:
        ask(cell(**axes))
    assert remedy in str(caught.value)


def test_what_the_system_has_is_not_resolved():
    system = {"torch": "2.11.0+cu130", "Jinja2": "3.1.6", "numpy": "2.2.6"}
    found = ask(cell("sm_90", torch="2.11.0"), system=system, without=["Ray"])
    assert found.excludes == ("jinja2", "numpy", "ray", "torch")


def test_a_package_that_a_named_requirement_forbids_comes_on_top():
    system = {"torch": "2.11.0+cu130", "numpy": "2.4.6"}
    found = ask(cell("sm_90", torch="installed"), ("numpy<2.4",), system=system)
    assert found.excludes == ("torch",)


def test_an_axis_that_the_system_has_in_another_version_is_a_conflict_that_names_both():
    with pytest.raises(ResolveError, match=r"torch==2\.13\.0.*torch 2\.11\.0\+cu130") as caught:
        ask(cell("sm_90", torch="2.13.0"), system={"torch": "2.11.0+cu130"})
    assert caught.value.conflict


def test_an_axis_value_installed_that_the_system_lacks_is_a_conflict():
    with pytest.raises(ResolveError, match="has none"):
        ask(cell("sm_90", torch="installed"), system={"numpy": "2.2.6"})


def test_an_axis_that_the_system_lacks_comes_on_top():
    found = ask(cell("sm_90", torch="2.11.0", vllm="0.24.0"), system={"torch": "2.11.0+cu130"})
    assert found.product == ("torch==2.11.0", "vllm==0.24.0")
    assert found.excludes == ("torch",)


def test_the_digest_names_the_wheel_and_not_its_place():
    def digest(path, sha256):
        return Request(product=(), python="3.11", wheels=(Wheel(path=path, sha256=sha256),)).digest

    here = digest("/a/x-1-py3-none-any.whl", "0" * 64)
    assert here == digest("/b/x-1-py3-none-any.whl", "0" * 64)
    assert here != digest("/a/x-1-py3-none-any.whl", "1" * 64)


NAMES = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,4}){0,2}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(\+[a-z0-9]{1,6})?", fullmatch=True)
PINS = st.builds(
    lambda name, version, digest: Pin(
        name=name,
        version=version,
        sha256=digest.hex(),
        file=f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
    ),
    NAMES,
    VERSIONS,
    st.binary(min_size=32, max_size=32),
)


@st.composite
def made_locks(draw):
    pins = draw(st.lists(PINS, max_size=8, unique_by=lambda pin: pin.name))
    cut = draw(st.integers(0, len(pins)))
    return Lock(
        python=draw(st.sampled_from(["3.11", "3.12"])),
        platform=draw(st.sampled_from(["", "x86_64-manylinux_2_35"])),
        torch_backend=draw(st.sampled_from(["", "cpu", "cu130"])),
        product=tuple(pins[:cut]),
        harness=tuple(pins[cut:]),
    )


@given(made_locks())
def test_a_lock_is_read_back_as_it_was_written(made):
    assert locks.parse(made.text()) == made


@given(made_locks(), st.data())
def test_a_lock_that_lost_or_changed_a_character_is_another_lock_or_damaged(made, data):
    text = made.text()
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(["", *string.printable]))
    changed = text[:place] + letter + text[place + 1 :]
    with contextlib.suppress(ConfigurationError):
        assert locks.parse(changed).text() == changed


@given(st.text())
def test_any_text_is_a_lock_or_damaged(text):
    with pytest.raises(ConfigurationError, match="damaged"):
        locks.parse(text)


@pytest.mark.parametrize(
    "line",
    [
        "six==1.17.0",
        "six @ https://index.example/six-1.17.0-py3-none-any.whl",
        f"six==1.17.0 --hash=md5:{'0' * 64}  # six-1.17.0-py3-none-any.whl",
        "--extra-index-url https://index.example",
    ],
)
def test_a_lock_holds_no_address_and_nothing_without_a_sha256(line):
    with pytest.raises(ConfigurationError, match="line 4"):
        locks.parse(f"{locks.TITLE}\n# python 3.11\n# product\n{line}\n# harness\n")


def test_a_package_twice_is_damage():
    pin = Pin(name="six", version="1", sha256="0" * 64, file="six-1-py3-none-any.whl")
    with pytest.raises(ConfigurationError, match="second time"):
        locks.parse(Lock(python="3.11", product=(pin,), harness=(pin,)).text())


def test_a_version_is_found_under_any_spelling_of_its_name():
    pin = Pin(name="flash-attn", version="2.8.3", sha256="0" * 64, file="f-1-py3-none-any.whl")
    lock = Lock(python="3.11", product=(pin,))
    assert lock.version("Flash_Attn") == "2.8.3"
    assert lock.version("torch") is None
