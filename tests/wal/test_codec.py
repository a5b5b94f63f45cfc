"""Records as bytes: every field of every type, every checksum bit."""

from __future__ import annotations

import dataclasses

import msgpack
import pytest
from florlog_wal import RECORD_TYPES, Commit, CorruptRecord, Record, Unencodable
from florlog_wal.codec import HEADER_SIZE, checksum, decode, encode, encode_body, encode_commit_body
from florlog_wal.fields import FIELDS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wal.samples import ALL_TYPES, commit, exact, records, records_of, run_begin

lsns = st.integers(1, 2**63 - 1)


@given(records, lsns, st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_record_comes_back_whole(record: Record, lsn: int, session: int, prev: int) -> None:
    data = encode(record, lsn, session, prev)
    entry = decode(lsn, data)
    assert exact(entry.record) == exact(record)
    assert type(entry.record) is type(record)
    assert (entry.lsn, entry.session, entry.prev_lsn, entry.nbytes) == (lsn, session or lsn, prev, len(data))


@given(records_of(Commit), st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_commit_given_by_its_fields_is_the_record(record: Record, session: int, prev: int) -> None:
    fields = [getattr(record, field.name) for field in dataclasses.fields(record)]
    assert encode_commit_body(session, prev, *fields) == encode_body(record, session, prev)


def test_every_record_type_has_a_codec_for_every_field() -> None:
    assert set(FIELDS) == set(RECORD_TYPES.values()) == set(ALL_TYPES)
    for cls, kinds in FIELDS.items():
        assert len(kinds) == len(dataclasses.fields(cls)), cls


def test_a_decoded_record_is_as_frozen_as_any() -> None:
    record = decode(1, encode(commit(1), 1, 1, 1)).record
    assert record == commit(1)
    assert hash(record) == hash(commit(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.loop = 3  # type: ignore[misc]


@given(records, lsns, st.integers(0), st.integers(0, 7))
def test_any_flipped_bit_is_corrupt(record: Record, lsn: int, where: int, bit: int) -> None:
    data = bytearray(encode(record, lsn, 1, 1))
    data[where % len(data)] ^= 1 << bit
    with pytest.raises(CorruptRecord) as caught:
        decode(lsn, bytes(data))
    assert caught.value.lsn == lsn


@given(records, lsns, lsns)
def test_a_record_in_the_place_of_another_is_corrupt(record: Record, lsn: int, other: int) -> None:
    if lsn != other:
        with pytest.raises(CorruptRecord):
            decode(other, encode(record, lsn, 1, 1))


@given(records, st.integers(0, 500))
def test_a_record_that_is_cut_off_is_corrupt(record: Record, size: int) -> None:
    data = encode(record, 7, 1, 1)
    with pytest.raises(CorruptRecord):
        decode(7, data[: size % len(data)])


def sealed(kind: int, payload: bytes) -> bytes:
    """A record with a right checksum and any payload."""
    body = bytearray(encode_body(commit(1), 1, 1))[:24] + payload
    body[1] = kind
    body[4:8] = len(payload).to_bytes(4, "big")
    return checksum(bytes(body), 7).to_bytes(8, "big") + bytes(body)


@settings(max_examples=500)
@given(st.integers(0, 20), st.binary(max_size=100))
def test_any_payload_behind_a_right_checksum_is_corrupt_or_a_record(kind: int, payload: bytes) -> None:
    try:
        entry = decode(7, sealed(kind, payload))
    except CorruptRecord:
        return
    encode(entry.record, 7, 1, 1)


objects = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=13) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)


@settings(max_examples=500)
@given(st.sampled_from(sorted(RECORD_TYPES)), objects)
def test_fields_of_wrong_types_are_corrupt(kind: int, fields: object) -> None:
    try:
        entry = decode(7, sealed(kind, msgpack.packb(fields)))
    except CorruptRecord:
        return
    assert exact(decode(7, encode(entry.record, 7, 1, 1)).record) == exact(entry.record)


def test_zeros_are_not_a_record() -> None:
    with pytest.raises(CorruptRecord):
        decode(1, bytes(HEADER_SIZE))


@pytest.mark.parametrize("field", ["loop", "seconds", "rng", "left", "values"])
def test_a_field_of_a_wrong_type_is_refused_before_it_is_written(field: str) -> None:
    with pytest.raises(Unencodable, match=rf"Commit\.{field}"):
        encode(dataclasses.replace(commit(1), **{field: None}), 1, 1, 1)
    with pytest.raises(Unencodable, match=r"RunBegin\.started"):
        encode(run_begin(started=1), 1, 0, 0)


def test_a_bool_is_no_integer_and_an_integer_has_64_bits() -> None:
    for bad in (True, 2**64):
        with pytest.raises(Unencodable):
            encode(dataclasses.replace(commit(1), index=bad), 1, 1, 1)


def test_a_value_that_cannot_be_logged_is_named() -> None:
    with pytest.raises(Unencodable, match=r"a object at loss\[1\]"):
        encode(commit(1, value=[1, object()]), 1, 1, 1)
