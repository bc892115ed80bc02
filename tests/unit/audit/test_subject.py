"""Wheels, directories and requirements to audit."""

import zipfile
from pathlib import Path

import pytest
from libraries import make_library

from pinproof.audit import subject
from pinproof.errors import ConfigurationError
from pinproof.locks.download import Target

HERE = Target(python="3.12", platform="x86_64-manylinux_2_35")


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_wheel_is_unpacked_as_far_as_its_libraries_and_removed_again(tmp_path: Path) -> None:
    library = make_library(tmp_path / "x.so").read_bytes()
    members = {"pkg/_C.abi3.so": library, "pkg/lib.so.12": library, "pkg/code.py": b"print()"}
    path = wheel(tmp_path / "pkg-1-py3-none-any.whl", members)
    with subject.opened(str(path), HERE) as found:
        assert [each.file for each in found.libraries()] == ["pkg/_C.abi3.so", "pkg/lib.so.12"]
        assert not (found.root / "pkg/code.py").exists()
        assert found.wheel == path.name
    assert not found.root.exists()
    assert path.exists()


def test_a_library_that_is_linked_twice_is_one(tmp_path: Path) -> None:
    make_library(tmp_path / "lib" / "libx.so.1.2")
    (tmp_path / "lib" / "libx.so").symlink_to("libx.so.1.2")
    (tmp_path / "lib" / "liby.so").write_text("GROUP ( libx.so )")
    with subject.opened(str(tmp_path), HERE) as found:
        assert [each.file for each in found.libraries()] == ["lib/libx.so.1.2"]


def test_a_library_that_is_linked_from_elsewhere_is_called_by_its_own_place(tmp_path: Path) -> None:
    make_library(tmp_path / "lib" / "libx.so.1")
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "libx.so").symlink_to(tmp_path / "lib" / "libx.so.1")
    with subject.opened(str(tmp_path), HERE) as found:
        assert [each.file for each in found.libraries()] == ["lib/libx.so.1"]


def test_the_objects_of_a_build_under_way_are_read_and_those_of_an_environment_are_not(
    tmp_path: Path,
) -> None:
    make_library(tmp_path / "build" / "unit.o")
    tree = subject.Subject(name="t", root=tmp_path)
    assert [each.file for each in tree.libraries()] == ["build/unit.o"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert not list(tree.libraries())


@pytest.mark.parametrize(
    ("file", "loads"),
    [
        ("x/_C.cpython-312-x86_64-linux-gnu.so", True),
        ("x/_C.cpython-311-x86_64-linux-gnu.so", False),
        ("x/_C.abi3.so", True),
        ("torch/_C.cpython-312-x86_64-linux-gnu.so", False),
    ],
)
def test_an_environment_loads_what_its_python_would(tmp_path: Path, file: str, loads: bool) -> None:
    (tmp_path / "lib" / "python3.12").mkdir(parents=True)
    assert subject.Subject(name="e", root=tmp_path).loads(file) is loads


@pytest.mark.parametrize(
    "name", ["/etc/passwd.so", "../../evil.so", "a/../../b.so", "C:/x.so", "\\x.so"]
)
def test_an_archive_that_reaches_outside_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    path = wheel(tmp_path / "x-1-py3-none-any.whl", {"ok.so": b"", name: b""})
    with pytest.raises(ConfigurationError, match="points outside of the archive"):
        subject.unpacked(path, tmp_path / "tree")
    assert list((tmp_path / "tree").iterdir()) == []


def test_a_wheel_that_is_cut_off_is_refused_in_words(tmp_path: Path) -> None:
    library = make_library(tmp_path / "x.so").read_bytes()
    path = wheel(tmp_path / "x-1-py3-none-any.whl", {"x.so": library})
    path.write_bytes(path.read_bytes()[:-30])
    with (
        pytest.raises(ConfigurationError, match="no whole archive"),
        subject.opened(str(path), HERE),
    ):
        pass


@pytest.mark.parametrize("text", ["no/such/file.whl", "vllm = 3", "x @ https://example.org/x.whl"])
def test_what_is_no_file_and_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError), subject.opened(text, HERE):
        pass
