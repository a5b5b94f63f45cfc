"""Records as bytes and back.  Pure: no I/O, no state but constants.

A record is a 32-byte header and a msgpack array of the record's fields in the order of the dataclass; the
boxes are in ``specs/log-format.md``.  The checksum covers every other byte of header and payload, and the
LSN, so a record in another's place is found as surely as a flipped bit.  The LSN enters by XOR after the
hash (times an odd constant, hence one-to-one), because it is known only under the log's lock, where
hashing would make the other threads wait.

Decoding checks the type of every field.  Arbitrary bytes give `CorruptRecord` or a record that `encode`
could have written, nothing else, since a reader must survive what a disk may do.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any, Final

import msgpack
import xxhash

from florlog_wal.errors import CorruptRecord, CorruptValue, Unencodable
from florlog_wal.records import (
    RECORD_TYPES,
    Abort,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Entry,
    Failure,
    Hindsight,
    LoggedValues,
    LoopBegin,
    LoopEnd,
    Note,
    Record,
    RunBegin,
    RunEnd,
    Statement,
    Values,
)  # fmt: skip
from florlog_wal.values import INT_MAX, INT_MIN, SCALARS, lift_extension, lower, pack

FORMAT_VERSION: Final = 1
HEADER: Final = struct.Struct(">QBBHIQQ")  # checksum, version, type, flags, length, session, prev
BODY_HEADER: Final = struct.Struct(">BBHIQQ")  # the same without the checksum
HEADER_SIZE: Final = HEADER.size
MAX_PAYLOAD: Final = 2**31 - 1

_MASK: Final = 2**64 - 1
_LSN_FACTOR: Final = 0x9E3779B97F4A7C15  # odd: distinct LSNs change the checksum distinctly
_hash: Final = xxhash.xxh3_64_intdigest
_unpackb: Final = msgpack.unpackb


def lsn_key(lsn: int) -> bytes:
    """The LMDB key of a record: bytewise order is LSN order."""
    return lsn.to_bytes(8, "big")


def checksum(body: bytes, lsn: int) -> int:
    """The checksum of a record's body (header without checksum, then payload) at an LSN."""
    return _hash(body) ^ (lsn * _LSN_FACTOR & _MASK)


def encode_body(record: Record, session: int, prev: int) -> bytes:
    """Everything of a record but its checksum: what can be done before the LSN is known."""
    payload = _encode_commit(record) if type(record) is Commit else _encode_fields(record)
    if len(payload) > MAX_PAYLOAD:
        raise Unencodable(f"{type(record).__name__} of {len(payload)} bytes", "")
    return BODY_HEADER.pack(FORMAT_VERSION, record.TYPE, 0, len(payload), session, prev) + payload


def encode(record: Record, lsn: int, session: int, prev: int) -> bytes:
    """A record as it is stored under its LSN."""
    body = encode_body(record, session, prev)
    return checksum(body, lsn).to_bytes(8, "big") + body


def check(lsn: int, data: bytes) -> tuple[int, int, int]:
    """Verify a stored record; its type number, session (0: it starts one) and previous LSN."""
    if len(data) < HEADER_SIZE:
        raise CorruptRecord(lsn, "shorter than a header")
    stored, version, kind, flags, length, session, prev = HEADER.unpack_from(data)
    if stored != _hash(data[8:]) ^ (lsn * _LSN_FACTOR & _MASK):
        raise CorruptRecord(lsn, "checksum mismatch")
    if version != FORMAT_VERSION or flags or length != len(data) - HEADER_SIZE or kind not in RECORD_TYPES:
        raise CorruptRecord(lsn, f"version {version}, type {kind}, flags {flags} or length {length}")
    return kind, session, prev


def decode(lsn: int, data: bytes) -> Entry:
    """The record stored under an LSN."""
    kind, session, prev = check(lsn, data)
    return decode_checked(lsn, data, kind, session, prev)


def decode_checked(lsn: int, data: bytes, kind: int, session: int, prev: int) -> Entry:
    """`decode` for one whose header `check` has verified."""
    try:
        fields = _unpackb(
            data[HEADER_SIZE:], ext_hook=_box, unicode_errors="surrogatepass"
        )
        record = _DECODERS[kind](fields)
    except CorruptValue as error:
        raise CorruptRecord(lsn, error.detail) from None
    except Exception as error:  # msgpack raises an open set of exceptions; here all mean the same
        raise CorruptRecord(lsn, f"{type(error).__name__}: {error}") from None
    return _Entry(lsn, session or lsn, prev, len(data), record)  # type: ignore[return-value]


# -- fields ------------------------------------------------------------------------------------------
# A field kind is a pair of functions: to what msgpack packs, and back.  Both check the type.


def _exact(kind: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    def same(value: Any) -> Any:
        if type(value) is not kind:
            raise CorruptValue(f"a {type(value).__name__} where {kind.__name__} belongs")
        return value

    return same, same


def _int(value: Any) -> int:
    if type(value) is not int or not INT_MIN <= value <= INT_MAX:
        raise CorruptValue(f"{value!r:.40} where an integer of 64 bits belongs")
    return value


def _list_of(value: Any, kind: type[Any], length: int | None = None) -> Any:
    if type(value) is not kind or (length is not None and len(value) != length):
        raise CorruptValue(f"a {type(value).__name__} where a {kind.__name__} of {length} belongs")
    return value


def _tuple_field(*kinds: _Field) -> _Field:
    """A tuple of fixed length."""
    size = len(kinds)
    return (
        lambda v: [k[0](x) for k, x in zip(kinds, _list_of(v, tuple, size), strict=True)],
        lambda v: tuple([k[1](x) for k, x in zip(kinds, _list_of(v, list, size), strict=True)]),
    )


def _many(kind: _Field) -> _Field:
    """A tuple of any length."""
    return (
        lambda v: [kind[0](x) for x in _list_of(v, tuple)],
        lambda v: tuple([kind[1](x) for x in _list_of(v, list)]),
    )


def _lower_dict(value: Any) -> Any:
    return lower(_list_of(value, dict), "", 0)


def _lift_dict(value: Any) -> Any:
    return _list_of(_unbox(value), dict)


def _box(code: int, payload: bytes) -> tuple[Any]:
    """A value that came as an extension, in a 1-tuple: so a field can tell it from msgpack's own list."""
    return (lift_extension(code, payload),)


def _unbox(value: Any) -> Any:
    kind = type(value)
    if kind in SCALARS or kind is int:
        return value
    if kind is tuple:
        return value[0]
    raise CorruptValue(f"a {kind.__name__} of msgpack's own where a value belongs")


def _lower_values(values: Any) -> list[Any]:
    flat: list[Any] = []
    for item in _list_of(values, tuple):
        statement, name, value = _list_of(item, tuple, 3)
        flat += (_int(statement), _STR[0](name), lower(value, name, 0))
    return flat


def _lift_values(flat: Any) -> tuple[tuple[int, str, Any], ...]:
    if type(flat) is not list:
        raise CorruptValue("logged values are not a list")
    if not flat:
        return ()
    values = []
    for statement, name, value in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        if type(statement) is not int or type(name) is not str:
            raise CorruptValue("a logged value without statement and name")
        values.append((statement, name, _unbox(value)))
    return tuple(values)


_Field = tuple[Callable[[Any], Any], Callable[[Any], Any]]
_STR, _BYTES, _FLOAT, _BOOL = _exact(str), _exact(bytes), _exact(float), _exact(bool)
_INT: _Field = (_int, _int)
_DICT: _Field = (_lower_dict, _lift_dict)
_VALUES: _Field = (_lower_values, _lift_values)
_STRS = _many(_STR)
_PATH = _many(_tuple_field(_STR, _INT))
_FRAMES = _many(_tuple_field(_STR, _STR, _INT))
_SOURCES = _many(_tuple_field(_STR, _STR, _BYTES))
_FAILURE_FIELDS = _tuple_field(_STR, _STR, _PATH, _many(_tuple_field(_STR, _STR, _INT, _STR)))
_FAILURE: _Field = (
    lambda f: None if f is None else _FAILURE_FIELDS[0]((f.exception, f.message, f.path, f.frames)),
    lambda f: None if f is None else Failure(*_FAILURE_FIELDS[1](f)),
)

FIELDS: Final[dict[type[Record], tuple[_Field, ...]]] = {
    RunBegin: (_STR, _STR, _STR, _STR, _STRS, _STR, _DICT, _DICT, _SOURCES, _FLOAT, _INT, _INT, _INT),
    RunEnd: (_STR, _FLOAT, _FAILURE),
    Statement: (_INT, _STR, _STR, _STR, _INT, _BYTES, _STRS, _STRS),
    LoopBegin: (_PATH, _STR, _INT, _INT, _STR, _INT, _INT, _FRAMES, _FLOAT, _DICT),
    LoopEnd: (_INT, _INT, _BOOL),
    Begin: (_INT, _INT),
    Values: (_INT, _INT, _INT, _VALUES),
    Commit: (_INT, _INT, _INT, _VALUES, _FLOAT, _BYTES, _BYTES, _BYTES, _BOOL),
    Abort: (_INT, _INT, _STR),
    CheckpointBegin: (_INT, _INT),
    CheckpointEnd: (_INT, _BYTES, _INT, _INT, _FLOAT, _FLOAT),
    Hindsight: (_PATH, _VALUES, _STR, _STR),
    Note: (_STR, _STR, _DICT),
}


def _encode_fields(record: Record) -> bytes:
    lowered: list[Any] = []
    for field, kind in zip(dataclasses.fields(record), FIELDS[type(record)], strict=True):
        try:
            lowered.append(kind[0](getattr(record, field.name)))
        except CorruptValue as error:
            raise Unencodable(error.detail, f"{type(record).__name__}.{field.name}") from None
    return pack(lowered)


def _decoder(cls: type[Record]) -> Callable[[Any], Record]:
    lifts = tuple(kind[1] for kind in FIELDS[cls])

    def build(fields: Any) -> Record:
        if type(fields) is not list:
            raise CorruptValue("the payload is not a list of fields")
        return cls(*[lift(field) for lift, field in zip(lifts, fields, strict=True)])

    return build


# -- the commit, which is nearly every record ----------------------------------------------------------


def _encode_commit(record: Commit) -> bytes:
    """`_encode_fields` unrolled: this runs on the training thread, once an iteration."""
    flat: list[Any] = []
    for statement, name, value in record.values:
        kind = type(value)
        if kind is not float and kind is not str:
            value = lower(value, name, 0)
        if type(statement) is not int or type(name) is not str:
            return _encode_fields(record)  # which names the field
        flat += (statement, name, value)
    if not (
        type(record.loop) is type(record.index) is type(record.segment) is int
        and type(record.seconds) is float
        and type(record.rng) is type(record.data) is type(record.state) is bytes
        and type(record.left) is bool
        and type(record.values) is tuple
    ):
        return _encode_fields(record)
    try:
        return pack(
            [
                record.loop, record.index, record.segment, flat, record.seconds,
                record.rng, record.data, record.state, record.left,
            ]
        )  # fmt: skip
    except OverflowError:
        return _encode_fields(record)


def _decode_commit(fields: Any) -> Commit:
    loop, index, segment, flat, seconds, rng, data, state, left = fields
    if not (
        type(fields) is list
        and type(loop) is type(index) is type(segment) is int
        and type(seconds) is float
        and type(rng) is type(data) is type(state) is bytes
        and type(left) is bool
    ):
        raise CorruptValue("a field of a Commit has a wrong type")
    if type(flat) is list and len(flat) == 3 and type(flat[0]) is int and type(flat[1]) is str:
        statement, name, value = flat
        kind = type(value)
        if kind is not float and kind is not int:
            value = _unbox(value)
        values: LoggedValues = ((statement, name, value),)
    else:
        values = _lift_values(flat)
    return _Commit(loop, index, segment, values, seconds, rng, data, state, left)  # type: ignore[return-value]


# A frozen dataclass fills its fields through object.__setattr__, which is a third of the time of a scan.
# These have the same slots, fill them directly, and then become the frozen class.


class _Entry:
    __slots__ = ("lsn", "nbytes", "prev_lsn", "record", "session")

    def __init__(self, lsn: int, session: int, prev_lsn: int, nbytes: int, record: Record) -> None:
        self.lsn = lsn
        self.session = session
        self.prev_lsn = prev_lsn
        self.nbytes = nbytes
        self.record = record
        self.__class__ = Entry  # type: ignore[assignment]


class _Commit:
    __slots__ = ("data", "index", "left", "loop", "rng", "seconds", "segment", "state", "values")

    def __init__(
        self, loop: int, index: int, segment: int, values: LoggedValues, seconds: float,
        rng: bytes, data: bytes, state: bytes, left: bool,
    ) -> None:  # fmt: skip
        self.loop = loop
        self.index = index
        self.segment = segment
        self.values = values
        self.seconds = seconds
        self.rng = rng
        self.data = data
        self.state = state
        self.left = left
        self.__class__ = Commit  # type: ignore[assignment]


_DECODERS: Final[dict[int, Callable[[Any], Record]]] = {
    number: _decoder(cls) for number, cls in RECORD_TYPES.items()
} | {Commit.TYPE: _decode_commit}
