"""Reads what a shared library says of itself: where its GPU code lies, what it needs and exports.

pyelftools finds the tables. The symbols are unpacked in bulk: libtorch_cpu has 200,000, and an
object for each of them would take longer than everything else together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from pinproof.audit import fatbin
from pinproof.audit.fatbin import DamagedError

_SYMBOL = struct.Struct("<IBBHQQ")
_WEAK = 2


@dataclass(frozen=True, kw_only=True)
class Elf:
    """A shared library. ``gpu`` are the (start, stop) offsets of its sections of GPU code."""

    needed: tuple[str, ...]
    gpu: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Symbols:
    """Names of dynamic symbols: those that others may use, and those that others must bring."""

    exported: frozenset[str]
    undefined: frozenset[str]


def is_elf(file: BinaryIO) -> bool:
    """Say if the file starts as an ELF file does; linker scripts are called ``.so`` as well."""
    file.seek(0)
    return file.read(4) == b"\x7fELF"


def read(file: BinaryIO) -> Elf:
    """Read an open ELF file. Raises DamagedError where it is cut off or no ELF file."""
    try:
        elf = _open(file)
        dynamic = elf.get_section_by_name(".dynamic")
        needed = () if dynamic is None else tuple(_needed(dynamic))
        sections = [elf.get_section_by_name(name) for name in fatbin.SECTIONS]
    except (ELFError, ConstructError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise DamagedError(f"it is no whole ELF file: {error}") from None
    found = [
        (int(each["sh_offset"]), int(each["sh_offset"] + each["sh_size"]))
        for each in sections
        if each is not None and each["sh_type"] != "SHT_NOBITS" and each["sh_size"]
    ]
    # Relocatable code beside linked code is what the linker read: the driver never loads it.
    return Elf(needed=needed, gpu=tuple(found[:1]))


def symbols(file: BinaryIO) -> Symbols:
    """Read the dynamic symbols of an open ELF file. Raises DamagedError as `read` does."""
    try:
        elf = _open(file)
        table = elf.get_section_by_name(".dynsym")
        if table is None:
            return Symbols(exported=frozenset(), undefined=frozenset())
        raw, names = table.data(), elf.get_section(table["sh_link"]).data()
    except (ELFError, ConstructError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise DamagedError(f"its symbols cannot be read: {error}") from None
    exported, undefined = set(), set()
    for name, info, section in _unpacked(raw):
        text = names[name : names.find(b"\0", name)].decode("ascii", "replace")
        if section:
            exported.add(text)
        elif text and info >> 4 != _WEAK:
            undefined.add(text)
    return Symbols(exported=frozenset(exported), undefined=frozenset(undefined))


def _unpacked(raw: bytes) -> Iterator[tuple[int, int, int]]:
    whole = len(raw) - len(raw) % _SYMBOL.size
    for name, info, _, section, _, _ in _SYMBOL.iter_unpack(raw[:whole]):
        yield name, info, section


def _open(file: BinaryIO) -> ELFFile:
    """Open an ELF file whose table of sections lies within it."""
    elf = ELFFile(file)
    size = file.seek(0, 2)
    end = elf["e_shoff"] + elf.num_sections() * elf["e_shentsize"]
    if not elf["e_shoff"] or end > size:
        raise DamagedError(
            f"it is cut off: its table of sections ends at byte {end} of {size}"
            if elf["e_shoff"]
            else "it has no table of sections"
        )
    if (elf.elfclass, elf.little_endian) != (64, True):
        raise DamagedError("it is for another kind of processor")
    return elf


def _needed(dynamic: object) -> Iterator[str]:
    for tag in dynamic.iter_tags("DT_NEEDED"):  # type: ignore[attr-defined]
        yield tag.needed
