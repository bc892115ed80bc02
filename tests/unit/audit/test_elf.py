"""What a shared library says of itself."""

import subprocess
from pathlib import Path

from libraries import SASS, container, entry, make_library

from pinproof.audit import elf, fatbin


def test_exported_and_undefined_symbols_are_told_apart(tmp_path: Path) -> None:
    path = make_library(tmp_path / "x.so", exports=["ours"], wants=["theirs"])
    with path.open("rb") as stream:
        found = elf.symbols(stream)
    assert {"ours", "call_x"} <= found.exported
    assert "theirs" in found.undefined
    assert not found.exported & found.undefined


def test_what_was_linked_counts_and_what_the_linker_read_does_not(tmp_path: Path) -> None:
    source = tmp_path / "x.c"
    for section, number in ((".nv_fatbin", 120), ("__nv_relfatbin", 90)):
        code = ",".join(map(str, container(entry(SASS, number))))
        where = f'__attribute__((section("{section}"), used, aligned(8)))'
        with source.open("a") as lines:
            lines.write(f"static const unsigned char c{number}[] {where} = {{{code}}};\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "x.so", source], check=True)
    with (tmp_path / "x.so").open("rb") as stream:
        about = elf.read(stream)
        data = (tmp_path / "x.so").read_bytes()
    codes = [code for at in about.gpu for unit in fatbin.units(data, *at) for code in unit]
    assert [str(code) for code in codes] == ["sm_120"]
