"""Records to bytes and back.  Pure: no I/O, no state except constants.

A record is a 32-byte header and a msgpack array of the record's fields in the order of the dataclass; the
boxes are in ``specs/log-format.md``.  The checksum covers every other byte of header and payload, and the
LSN, so a record in the place of another is found as surely as a flipped bit.  The LSN, times an odd constant
(which is one-to-one), is XORed with the finished hash: it is known only under the log's lock, where hashing
would make the other threads wait.

Decoding checks the type of every field.  Arbitrary bytes give `CorruptRecord` or a record that `encode`
could have written, and nothing else, because a reader must survive whatever a disk does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final

import msgpack
import xxhash

from florlog_wal.errors import CorruptRecord, CorruptValue, Unencodable
from florlog_wal.fields import DECODERS, box, encode_commit, encode_fields
from florlog_wal.records import RECORD_TYPES, Commit, Entry, Record
from florlog_wal.values import lower, pack

FORMAT_VERSION: Final = 1
HEADER: Final = struct.Struct(">QBBHIQQ")  # checksum, version, type, flags, length, session, prev
BODY_HEADER: Final = struct.Struct(">BBHIQQ")  # the same without the checksum
HEADER_SIZE: Final = HEADER.size
MAX_PAYLOAD_BYTES: Final = 2**31 - 1

MASK: Final = 2**64 - 1
LSN_FACTOR: Final = 0x9E3779B97F4A7C15  # odd: distinct LSNs change the checksum distinctly
body_hash: Final = xxhash.xxh3_64_intdigest
_unpackb: Final = msgpack.unpackb
_DIRECT: Final = frozenset({float, str, bool, type(None), bytes})  # what `lower` returns unchanged


def lsn_key(lsn: int) -> bytes:
    """The LMDB key of a record: bytewise order is LSN order."""
    return lsn.to_bytes(8, "big")


def checksum(body: bytes, lsn: int) -> int:
    """The checksum of a record's body (header without checksum, then payload) at an LSN."""
    return body_hash(body) ^ (lsn * LSN_FACTOR & MASK)


def encode_body(record: Record, session: int, prev: int) -> bytes:
    """All of a record except its checksum: what can be done before the LSN is known.

    Raises `Unencodable` for a field of another type than the dataclass says, or a value the log does not take.
    """
    payload = encode_commit(record) if type(record) is Commit else encode_fields(record)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Unencodable(f"{type(record).__name__} of {len(payload)} bytes", "")
    return BODY_HEADER.pack(FORMAT_VERSION, record.TYPE, 0, len(payload), session, prev) + payload


def encode_commit_body(
    session: int, prev: int, loop: int, index: int, segment: int, values: Iterable[tuple[int, str, Any]],
    seconds: float, rng: bytes, data: bytes, state: bytes, left: bool,
) -> bytes:  # fmt: skip
    """`encode_body` of a `Commit`, without the object and without checks: the caller guarantees the types."""
    flat: list[Any] = []
    for statement, name, value in values:
        flat += (statement, name, value if type(value) in _DIRECT else lower(value, name, 0))
    payload = pack([loop, index, segment, flat, seconds, rng, data, state, left])
    return BODY_HEADER.pack(FORMAT_VERSION, Commit.TYPE, 0, len(payload), session, prev) + payload


def encode(record: Record, lsn: int, session: int, prev: int) -> bytes:
    """A record as stored under its LSN."""
    body = encode_body(record, session, prev)
    return checksum(body, lsn).to_bytes(8, "big") + body


def check(lsn: int, data: bytes) -> tuple[int, int, int]:
    """Verify a stored record and return its type number, session (0: it starts one) and previous LSN.

    Raises `CorruptRecord`.
    """
    if len(data) < HEADER_SIZE:
        raise CorruptRecord(lsn, "shorter than a header")
    stored, version, kind, flags, length, session, prev = HEADER.unpack_from(data)
    if stored != body_hash(data[8:]) ^ (lsn * LSN_FACTOR & MASK):
        raise CorruptRecord(lsn, "checksum mismatch")
    if version != FORMAT_VERSION or flags or length != len(data) - HEADER_SIZE or kind not in RECORD_TYPES:
        raise CorruptRecord(lsn, f"version {version}, type {kind}, flags {flags} or length {length}")
    return kind, session, prev


def decode(lsn: int, data: bytes) -> Entry:
    """The record stored under an LSN.  Raises `CorruptRecord`."""
    kind, session, prev = check(lsn, data)
    return decode_checked(lsn, data, kind, session, prev)


def decode_checked(lsn: int, data: bytes, kind: int, session: int, prev: int) -> Entry:
    """`decode` for a record that `check` has verified."""
    try:
        fields = _unpackb(data[HEADER_SIZE:], ext_hook=box, unicode_errors="surrogatepass")
        record = DECODERS[kind](fields)
    except CorruptValue as error:
        raise CorruptRecord(lsn, error.detail) from None
    except Exception as error:  # msgpack raises an open set of exceptions; here all mean the same
        raise CorruptRecord(lsn, f"{type(error).__name__}: {error}") from None
    return _UnfrozenEntry(lsn, session or lsn, prev, len(data), record)  # type: ignore[return-value]


class _UnfrozenEntry:
    """An `Entry` whose fields are set directly and which then becomes one; see `fields._UnfrozenCommit`."""

    __slots__ = ("lsn", "nbytes", "prev_lsn", "record", "session")

    def __init__(self, lsn: int, session: int, prev_lsn: int, nbytes: int, record: Record) -> None:
        self.lsn = lsn
        self.session = session
        self.prev_lsn = prev_lsn
        self.nbytes = nbytes
        self.record = record
        self.__class__ = Entry  # type: ignore[assignment]
