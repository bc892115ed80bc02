"""Which C++ symbols a library wants of torch, and whether a torch has them.

A library of another torch fails at import, with one mangled name. Here all of them are known
before, from two tables of symbols. What has only the C functions of torch's stable ABI loads in
every torch that has those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pinproof.audit import elf
from pinproof.audit.fatbin import DamagedError

#: Libraries whose symbols are torch's own.
_LIBRARIES = re.compile(r"lib(?:torch|c10)\w*\.so(?:\.\d+)*")

#: Itanium names: of a namespace of torch, of its Python binding, of its casters for pybind11.
_CPP = re.compile(
    r"_Z(?:T[VIST]|GV)?N?[VKRO]*(?:2at|3c10|5torch|6caffe2)\d"
    r"|_ZN?[VKRO]*\d+THP|_ZNK?8pybind116detail11type_casterI\w*?N(?:2at|3c10|5torch)\d"
)
_STABLE = re.compile(r"aoti_torch_\w+|torch_[a-z]\w+")


def needs(undefined: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return which of the names are torch's: C++ ones, and those of its stable C interface."""
    cpp, stable = set(), set()
    for name in undefined:
        if _CPP.match(name):
            cpp.add(name)
        elif _STABLE.fullmatch(name):
            stable.add(name)
    return frozenset(cpp), frozenset(stable)


def is_torchs(file: str) -> bool:
    """Say if a file name is that of one of torch's own libraries."""
    return _LIBRARIES.fullmatch(file.rpartition("/")[2]) is not None


def exports(directory: Path) -> frozenset[str]:
    """Return every symbol that torch's libraries in `directory` (``torch/lib``) export.

    Raises DamagedError where one of them cannot be read.
    """
    names: set[str] = set()
    for path in sorted(directory.glob("lib*.so*")):
        if not is_torchs(path.name):
            continue
        with path.open("rb") as stream:
            try:
                names |= elf.symbols(stream).exported
            except DamagedError as error:
                raise DamagedError(f"torch's {path.name}: {error}") from None
    return frozenset(names)
