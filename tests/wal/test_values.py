"""Values as bytes: exact round trips, one encoding for each value, and only CorruptValue for damage."""

from __future__ import annotations

import enum
import struct
import tracemalloc
from collections import OrderedDict, deque, namedtuple
from typing import Any

import msgpack
import numpy as np
import pytest
from florlog_wal import (
    CorruptValue,
    PageEntry,
    Unencodable,
    decode_table,
    decode_value,
    encode_table,
    encode_value,
)
from florlog_wal.values import MAX_DEPTH
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.samples import exact, tables, values


@given(values)
def test_a_value_comes_back_with_its_types_and_bits(value: Any) -> None:
    assert exact(decode_value(encode_value(value))) == exact(value)


@given(values)
def test_a_value_has_one_encoding(value: Any) -> None:
    assert encode_value(decode_value(encode_value(value))) == encode_value(value)


@given(st.permutations([1, "a", b"a", None, 2.5, (1, 2), 2**80]))
def test_the_order_in_which_a_set_was_filled_does_not_show(items: list[Any]) -> None:
    assert encode_value(set(items)) == encode_value({1, "a", b"a", None, 2.5, (1, 2), 2**80})


def test_a_nan_keeps_its_payload() -> None:
    nan = struct.unpack(">d", bytes.fromhex("7ff4000000000123"))[0]
    assert struct.pack(">d", decode_value(encode_value([nan]))[0]).hex() == struct.pack(">d", nan).hex()


@pytest.mark.parametrize(
    "value",
    [
        bytearray(b"x"), memoryview(b"x"), object(), np.float32(1), np.zeros(2), OrderedDict(), range(3),
        namedtuple("P", "x")(1), enum.IntEnum("E", "A").A, msgpack.ExtType(2, b""), msgpack.Timestamp(1),
        slice(1), type, lambda: None, 1 + 1j * np.complex64(1), Ellipsis,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_type_outside_the_table_is_refused_by_name_and_place(value: Any) -> None:
    with pytest.raises(Unencodable) as caught:
        encode_value({"a": [0, value]})
    assert type(value).__qualname__ in str(caught.value)
    assert caught.value.where == "['a'][1]"


def test_nesting_is_bounded_in_both_directions() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert exact(decode_value(encode_value(value))) == exact(value)
    with pytest.raises(Unencodable, match="nested deeper"):
        encode_value([value])
    data = msgpack.packb(1)
    for _ in range(MAX_DEPTH + 1):
        data = msgpack.packb(msgpack.ExtType(2, data))
    with pytest.raises(CorruptValue, match="nested deeper"):
        decode_value(data)


def damage(data: bytes, where: int, what: int) -> bytes:
    where %= len(data)
    return data[:where] + bytes([data[where] ^ what]) + data[where + 1 :]


@given(values, st.integers(0), st.integers(1, 255))
def test_a_damaged_value_is_corrupt_or_another_whole_value(value: Any, where: int, what: int) -> None:
    try:
        found = decode_value(damage(encode_value(value), where, what))
    except CorruptValue:
        return
    encode_value(found)


@settings(max_examples=1000)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_value_or_corrupt_value(data: bytes) -> None:
    for decode in (decode_value, decode_table):
        try:
            decode(data)
        except CorruptValue:
            pass


@pytest.mark.parametrize("head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
                                  b"\xc9\xff\xff\xff\xff\x02", b"\xdb\xff\xff\xff\xff"])  # fmt: skip
def test_a_huge_count_asks_for_no_memory(head: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CorruptValue):
            decode_value(head + b"\x00" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_timestamp_or_an_unknown_extension_is_corrupt() -> None:
    for data in (msgpack.packb(msgpack.Timestamp(1)), msgpack.packb(msgpack.ExtType(99, b""))):
        with pytest.raises(CorruptValue):
            decode_value(data)
        with pytest.raises(CorruptValue):
            decode_value(msgpack.packb(msgpack.ExtType(2, data)))


def test_a_deque_over_its_limit_is_corrupt() -> None:
    data = encode_value(deque([1, 2], 2)).replace(b"\x02\x01\x02", b"\x01\x01\x02")
    with pytest.raises(CorruptValue, match="deque"):
        decode_value(data)


@given(tables)
def test_a_page_table_comes_back_and_has_one_encoding(table: dict[str, PageEntry]) -> None:
    data = encode_table(table)
    assert decode_table(data) == table
    assert encode_table(dict(reversed(table.items()))) == data


@given(tables, st.integers(0), st.integers(1, 255))
def test_a_damaged_page_table_is_corrupt_or_another_table(
    table: dict[str, PageEntry], where: int, what: int
) -> None:
    try:
        found = decode_table(damage(encode_table(table), where, what))
    except CorruptValue:
        return
    encode_table(found)
