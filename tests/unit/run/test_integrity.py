import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import make_wheel

from pinproof.locks.installer import find_uv
from pinproof.run import integrity
from pinproof.run.integrity import LARGE, check


@pytest.fixture
def sites(tmp_path):
    """Two environments with one package, as uv makes them: by hard links into one cache."""
    files = {"pkg/a.py": "A = 1\n", "pkg/b.py": "B = 1\n", "pkg/big.so": "x" * LARGE}
    wheel = make_wheel(tmp_path, "pkg", "1.0", files=files)
    env = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache")}
    found = []
    for name in ("one", "two"):
        home = tmp_path / name
        subprocess.run([find_uv(), "venv", "-q", "--python", sys.executable, home], check=True)
        install = [find_uv(), "pip", "install", "-q", "--offline", "--link-mode", "hardlink"]
        subprocess.run([*install, "--python", home / "bin/python", wheel], env=env, check=True)
        found.append(next(home.glob("lib/python*/site-packages")))
    return found


def test_an_environment_as_it_was_installed_has_no_change(sites, tmp_path):
    assert check(sites[0]) == []
    assert check(sites[0], tmp_path / "stamp") == []
    assert check(sites[0], tmp_path / "stamp") == []


@pytest.mark.parametrize("file", ["pkg/a.py", "pkg/big.so"])
def test_an_edit_in_one_environment_is_noticed_in_the_other(sites, tmp_path, file):
    """The hazard itself: both files are one inode."""
    stamp = tmp_path / "stamp"
    assert check(sites[1], stamp) == []
    with (sites[0] / file).open("a") as stream:
        stream.write("edited\n")
    assert (sites[1] / file).read_text().endswith("edited\n")
    for changes in (check(sites[1], stamp), check(sites[1], stamp), check(sites[1])):
        assert [str(change) for change in changes] == [f"pkg: {file} was edited after its install"]


def test_a_file_that_is_gone_is_noticed(sites):
    (sites[0] / "pkg/b.py").unlink()
    assert [change.what for change in check(sites[0])] == ["is gone"]


def test_bytecode_is_no_change(sites):
    subprocess.run([sys.executable, "-m", "compileall", "-q", sites[0]], check=True)
    assert list(sites[0].glob("pkg/__pycache__/*.pyc"))
    assert check(sites[0]) == []


def test_with_a_stamp_only_what_moved_is_read_again(sites, tmp_path):
    """A stamp that knows a file's size, mtime and inode is believed, so its content is not read."""
    stamp, file = tmp_path / "stamp", sites[0] / "pkg/a.py"
    check(sites[0], stamp)
    file.write_text("A = 7\n")
    status = file.stat()
    known = json.loads(stamp.read_text())
    known["pkg/a.py"] = [status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev]
    stamp.write_text(json.dumps(known))
    assert check(sites[0], stamp) == []
    assert len(check(sites[0])) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", "null"])
def test_a_damaged_stamp_means_that_everything_is_read(sites, tmp_path, damage):
    stamp = tmp_path / "stamp"
    stamp.write_text(damage)
    assert check(sites[0], stamp) == []
    assert "pkg/a.py" in json.loads(stamp.read_text())


def test_an_empty_directory_has_nothing_to_change(tmp_path):
    assert check(Path(tmp_path)) == []


BUILT = {"flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so": "a" * 64}


@pytest.mark.parametrize(
    ("place", "sha256", "said"),
    [
        ("env/site", "a" * 64, ""),
        ("env/site", "b" * 64, "is not the one that was built and audited"),
        ("elsewhere", "a" * 64, "was loaded in the place of"),
    ],
)
def test_evidence_of_another_extension_than_the_built_one_is_void(
    tmp_path: Path, place: str, sha256: str, said: str
) -> None:
    (file,) = BUILT
    seen = {"path": str(tmp_path / place / file), "sha256": sha256}
    other = {"path": "/usr/lib/vllm/_C.abi3.so", "sha256": "c" * 64}
    documents = [{"candidates": [{"extensions": [other, seen]}]}, {"extensions": [other, seen]}]
    for document in documents:
        found = integrity.stranger(integrity.loaded(document), [tmp_path / "env" / "site"], BUILT)
        assert said in found
        assert bool(found) is bool(said)


def test_what_was_not_built_is_compared_with_its_wheel_and_not_here(tmp_path: Path) -> None:
    seen = [{"path": "/anywhere/_vllm_fa2_C.abi3.so", "sha256": "c" * 64}]
    assert integrity.stranger(seen, [tmp_path], {}) == ""
    assert list(integrity.loaded({})) == []


def test_what_one_environment_was_found_to_share_is_not_read_again_in_another(sites, tmp_path):
    """As with a stamp, the content is not read: a file that is known by its inode is believed."""
    inodes = tmp_path / "files.json"
    check(sites[0], tmp_path / "one-stamp", inodes)
    file = sites[1] / "pkg/a.py"
    file.write_text("A = 7\n")
    status = file.stat()
    known = json.loads(inodes.read_text())
    device_and_inode = f"{status.st_dev}:{status.st_ino}"
    known[device_and_inode] = [status.st_size, status.st_mtime_ns, known[device_and_inode][2]]
    inodes.write_text(json.dumps(known))
    assert check(sites[1], tmp_path / "two-stamp", inodes) == []
    assert len(check(sites[1])) == 1


@pytest.mark.parametrize("file", ["pkg/a.py", "pkg/big.so"])
def test_an_edit_of_a_file_that_was_read_before_is_noticed_in_every_environment(
    sites, tmp_path, file
):
    inodes = tmp_path / "files.json"
    check(sites[0], tmp_path / "one-stamp", inodes)
    with (sites[0] / file).open("r+") as stream:
        stream.write("9")  # of the same size
    for site, stamp in zip(sites, ("one-stamp", "two-stamp"), strict=True):
        changes = check(site, tmp_path / stamp, inodes)
        assert [str(change) for change in changes] == [f"pkg: {file} was edited after its install"]


def test_another_wheel_s_file_under_the_same_inode_is_read(sites, tmp_path):
    """What is believed of an inode is its digest, and not that it is right anywhere."""
    inodes = tmp_path / "files.json"
    check(sites[0], tmp_path / "one-stamp", inodes)
    other = sites[1] / "pkg/b.py"
    other.unlink()
    other.hardlink_to(sites[1] / "pkg/a.py")
    changes = check(sites[1], tmp_path / "two-stamp", inodes)
    assert [change.file for change in changes] == ["pkg/b.py"]
