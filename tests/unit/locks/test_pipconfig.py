import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinproof.errors import ConfigurationError
from pinproof.locks import pipconfig
from pinproof.locks.pipconfig import PipConfig

CLEAN = {name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "XDG_"))}

#: Where a file may lie, under a directory that stands for the whole machine.
PLACES = {
    "system": "xdg/pip/pip.conf",
    "old user": "home/.pip/pip.conf",
    "user": "home/.config/pip/pip.conf",
    "environment": "venv/pip.conf",
    "named": "named.conf",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Return a directory with the environment of a pip that knows no other place."""
    root = tmp_path_factory.mktemp("machine")
    venv.create(root / "venv", with_pip=False)
    return root


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"system": "[global]\nindex-url = https://a.example\nno_index = no"},
        {"system": "[install]\nindex-url = https://a.example", "user": "[global]\nindex-url=b"},
        {"old user": "[global]\nfind-links =\n  /a\n  /b", "user": "[global]\ncert=/c"},
        {"user": "[global]\nFIND_LINKS = /user", "environment": "[global]\n--find-links = /venv"},
        {"environment": "[global]\ncert = /venv", "named": "[global]\ncert = /named"},
        {"user": "[global]\ncert = /user%(x)s", "named": "[download]\ncert = /named"},
    ],
)
def test_the_files_say_what_they_say_to_pip_itself(machine, written):
    for place, path in PLACES.items():
        (machine / path).unlink(missing_ok=True)
        if place in written:
            (machine / path).parent.mkdir(parents=True, exist_ok=True)
            (machine / path).write_text(written[place])
    environ = {**CLEAN, "HOME": str(machine / "home"), "XDG_CONFIG_DIRS": str(machine / "xdg")}
    if "named" in written:
        environ["PIP_CONFIG_FILE"] = str(machine / "named.conf")
    ours = pipconfig.read(environ, [str(machine / "venv")])
    told = _of_pip(machine / "venv" / "bin" / "python", environ)
    assert (ours.index_url, ours.cert) == (told.get("index-url", ""), told.get("cert", ""))
    assert ours.find_links == tuple(told.get("find-links", "").split())
    assert ours.no_index is (told.get("no-index") in ("yes", "1"))


#: Prints what pip takes for each key: an install takes its own section, then the global one.
ASK = """
import json, sys
from pip._internal.configuration import Configuration
from pip._internal.exceptions import ConfigurationError
found, known = {}, Configuration(isolated=False)
known.load()
for section in ("global", "install"):
    for key in sys.argv[1:]:
        try:
            found[key] = known.get_value(f"{section}.{key}")
        except ConfigurationError:
            pass
print(json.dumps(found))
"""


def _of_pip(python, environ):
    """Return what a real pip takes from its files."""
    environ = {**environ, "PYTHONPATH": str(Path(pip.__file__).parents[1])}
    words = [python, "-c", ASK, *pipconfig.KEYS]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@given(st.binary(max_size=60))
def test_a_file_that_pip_could_not_read_is_an_error_that_shows_none_of_it(content):
    with tempfile.NamedTemporaryFile(suffix=".conf") as file:
        file.write(content + b"\n[global\nindex-url = https://user:secret@host.example\n")
        file.flush()
        with pytest.raises(ConfigurationError) as told:
            pipconfig.read({"PIP_CONFIG_FILE": file.name}, [])
    assert "secret" not in str(told.value)


def test_no_file_counts_where_pip_is_told_to_read_none():
    assert list(pipconfig.files({"PIP_CONFIG_FILE": os.devnull}, [sys.prefix])) == []


def read(tmp_path, text, **variables):
    """Read a configuration of one file."""
    file = tmp_path / "pip.conf"
    file.write_text(text)
    return pipconfig.read({**CLEAN, "PIP_CONFIG_FILE": str(file), **variables})


def test_what_pip_is_configured_with_is_found(tmp_path):
    text = "[global]\ncert = /c.pem\n[install]\nindex-url = https://mirror.example/wheels\n"
    found = read(tmp_path, text)
    assert found.index_url == "https://mirror.example/wheels"
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
        index_url="https://user:secret@mirror.example/wheels",
        extra_index_urls=("https://a.example",),
        find_links=("/x", "/y"),
    )
    assert found.kinds() == ("a mirror", "1 extra index", "2 places of wheels")
    assert "secret" not in repr(found)
    assert "mirror.example" not in repr(found)
