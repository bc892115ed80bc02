"""Containers of GPU code, read from bytes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libraries import FAMILY, LTO, PTX, SASS, SPECIFIC, container, entry

from pinproof.audit import fatbin
from pinproof.audit.arch import Arch, Code, Kind
from pinproof.audit.fatbin import DamagedError

NUMBERS = st.integers(50, 130)
ENTRIES = st.lists(
    st.tuples(st.sampled_from([PTX, SASS, LTO]), NUMBERS, st.sampled_from([0, SPECIFIC, FAMILY])),
    max_size=6,
)


def read(data: bytes) -> list[tuple[Code, ...]]:
    return list(fatbin.units(data, 0, len(data)))


@given(st.lists(ENTRIES, max_size=6), st.integers(0, 4))
def test_every_entry_of_every_unit_is_read_in_its_order(units: list, padding: int) -> None:
    data = b"".join(
        container(*(entry(*each) for each in unit)) + bytes(8 * padding) for unit in units
    )
    kinds = {PTX: Kind.PTX, SASS: Kind.SASS, LTO: Kind.OTHER}
    suffixes = {0: "", SPECIFIC: "a", FAMILY: "f"}
    expected = [
        tuple(
            Code(kinds[kind], Arch(number, suffixes[flags]), (9, 0)) for kind, number, flags in unit
        )
        for unit in units
    ]
    assert read(data) == expected


@given(st.binary(max_size=400), st.integers(0, 3))
def test_no_bytes_make_the_reader_end_in_anything_but_words(noise: bytes, wholes: int) -> None:
    data = container(entry(SASS, 120)) * wholes + noise
    with contextlib.suppress(DamagedError):
        read(data)


@given(st.data())
def test_one_wrong_byte_makes_no_endless_reading(data: st.DataObject) -> None:
    whole = bytearray(container(entry(SASS, 120), entry(PTX, 80)))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedError):
        assert len(read(bytes(whole))) <= 1 + len(whole) // 8


def test_the_version_of_ptx_stands_in_its_header() -> None:
    ((code,),) = read(container(entry(PTX, 80, version=(8, 7))))
    assert str(code) == "compute_80 (PTX 8.7)"


@pytest.mark.parametrize("missing", [1, 30, 100])
def test_a_container_that_is_cut_off_is_damaged(missing: int) -> None:
    data = container(entry(SASS, 120))
    with pytest.raises(DamagedError, match=r"longer than its section|no whole container"):
        read(data[:-missing])


def test_code_beyond_the_end_of_the_file_is_damaged() -> None:
    with pytest.raises(DamagedError, match="should end at byte 900"):
        list(fatbin.units(b"", 0, 900))
