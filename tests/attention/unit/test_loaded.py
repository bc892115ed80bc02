"""Which compiled extensions a process has loaded."""

import ctypes
import hashlib
import subprocess

from pinproof_cell.world import loaded


def test_a_library_under_test_is_told_once_it_is_loaded_and_with_its_bytes(tmp_path):
    path = tmp_path / "flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so"
    source = tmp_path / "x.c"
    source.write_text("int answer(void) { return 42; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, source], check=True)
    assert str(path) not in {each["path"] for each in loaded.extensions()}
    library = ctypes.CDLL(str(path))
    assert library.answer() == 42
    (found,) = [each for each in loaded.extensions() if each["path"] == str(path)]
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["bytes"] == path.stat().st_size


def test_what_is_not_under_test_is_not_told(tmp_path):
    maps = tmp_path / "maps"
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "_C.abi3.so").write_bytes(b"code")
    (tmp_path / "vllm" / "other.py").write_bytes(b"code")
    names = ("vllm/_C.abi3.so", "vllm/other.py", "libtorch_cuda.so", "vllm/gone.so")
    lines = [f"7f00-7f01 r-xp 0000 00:00 1   {tmp_path}/{name}\n" for name in names]
    maps.write_text("".join([*lines, *lines, "7f00-7f01 rw-p 0000 00:00 0 [heap]\n"]))
    assert [each["path"] for each in loaded.extensions(maps)] == [f"{tmp_path}/vllm/_C.abi3.so"]
    assert loaded.extensions(tmp_path / "nowhere") == []
