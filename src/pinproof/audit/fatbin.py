"""Reads the containers of GPU code in a library: headers alone, so that a gigabyte takes no time.

The section ``.nv_fatbin`` is a row of containers, one for each translation unit, or for all units
that were linked to each other (``-rdc=true``); of an object that is not linked yet the section is
``__nv_relfatbin``. Each container has a header of 16 bytes: magic, version, header size, size of
what follows. What follows are entries, each with a header of at least 64 bytes:

    offset  size
    0       2     kind: 1 PTX, 2 an ELF file with machine code, others are intermediate code
    4       4     size of this header
    8       8     size of the payload behind it, compressed or not
    24      2+2   minor and major version: of PTX the version of the language
    28      4     architecture: 120
    40      8     flags, among them: architecture-specific (sm_120a), family-specific (sm_120f)

The layout was read from libraries of nvcc 11.8 to 13.2; tests compare it with cuobjdump.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap

from pinproof.audit.arch import Arch, Code, Kind

#: In the order in which they count: what was linked, then what waits for the linker.
SECTIONS = (".nv_fatbin", "__nv_relfatbin")

MAGIC = 0xBA55ED50
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHI8xQ")
_ENTRY_MIN = 64
_ALIGNMENT = 8

_KINDS = {1: Kind.PTX, 2: Kind.SASS}
_SUFFIXES = {0x100000: "a", 0x200000: "f"}

Unit = tuple[Code, ...]


class DamagedError(ValueError):
    """Bytes that are not what their place promises."""


def units(data: bytes | mmap, start: int, stop: int) -> Iterator[Unit]:
    """Yield what each container between the offsets `start` and `stop` of `data` holds.

    Raises DamagedError where the bytes are no containers, or are cut off.
    """
    stop_of_data = len(data)
    if stop > stop_of_data:
        raise DamagedError(f"GPU code should end at byte {stop} of a file of {stop_of_data}")
    at = start
    while at + _CONTAINER.size <= stop:
        magic, _, header, size = _CONTAINER.unpack_from(data, at)
        if magic == 0:
            at += _ALIGNMENT  # padding between two units
            continue
        if magic != MAGIC:
            raise DamagedError(f"no container of GPU code at byte {at}")
        if header < _CONTAINER.size or at + header + size > stop:
            raise DamagedError(f"the container at byte {at} is longer than its section")
        yield tuple(_entries(data, at + header, at + header + size))
        at += header + size
        at += -(at - start) % _ALIGNMENT
    if any(data[at:stop]):
        raise DamagedError(f"no whole container of GPU code at byte {at}")


def _entries(data: bytes | mmap, at: int, stop: int) -> Iterator[Code]:
    while at + _ENTRY_MIN <= stop:
        kind, _, header, size, _, _, minor, major, number, flags = _ENTRY.unpack_from(data, at)
        if header < _ENTRY_MIN or at + header + size > stop:
            raise DamagedError(f"the entry at byte {at} is longer than its container")
        suffix = next((text for bit, text in _SUFFIXES.items() if flags & bit), "")
        yield Code(_KINDS.get(kind, Kind.OTHER), Arch(number, suffix), (major, minor))
        at += header + size
