"""The fields of each record type: how they become msgpack objects, and how they are checked on the way back.

A field kind is a pair of functions: to an object that msgpack packs, and back.  Both check the type exactly, so
what is written can be read, and what is read could have been written.  A logged value that is a container comes
as an extension object (see `values`); msgpack's own arrays are only the structure of a record.

Nearly every record is a commit, so both directions of it are written out by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from florlog_wal.errors import CorruptValue, Unencodable
from florlog_wal.records import (
    RECORD_TYPES,
    Abort,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
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


def box(code: int, payload: bytes) -> tuple[Any]:
    """A value that came as an extension, in a 1-tuple, which distinguishes it from msgpack's own list."""
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
_EARLIER = _many(_tuple_field(_STR, _STR))
_FAILURE_FIELDS = _tuple_field(_STR, _STR, _PATH, _many(_tuple_field(_STR, _STR, _INT, _STR)))
_FAILURE: _Field = (
    lambda f: None if f is None else _FAILURE_FIELDS[0]((f.exception, f.message, f.path, f.frames)),
    lambda f: None if f is None else Failure(*_FAILURE_FIELDS[1](f)),
)

FIELDS: Final[dict[type[Record], tuple[_Field, ...]]] = {
    RunBegin: (
        _STR, _STR, _STR, _STR, _STRS, _STR, _DICT, _DICT, _SOURCES, _FLOAT, _INT, _INT, _INT, _EARLIER,
    ),
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
}  # fmt: skip
_NAMES: Final = {cls: tuple(field.name for field in dataclasses.fields(cls)) for cls in FIELDS}


def encode_fields(record: Record) -> bytes:
    """A record's payload.  Raises `Unencodable`, which names the field."""
    kinds = FIELDS.get(type(record))
    if kinds is None:
        raise Unencodable(type(record).__name__, "the place of a record")
    lowered: list[Any] = []
    for name, kind in zip(_NAMES[type(record)], kinds, strict=True):
        try:
            lowered.append(kind[0](getattr(record, name)))
        except CorruptValue as error:
            raise Unencodable(error.detail, f"{type(record).__name__}.{name}") from None
    return pack(lowered)


def _decoder(cls: type[Record]) -> Callable[[Any], Record]:
    lifts = tuple(kind[1] for kind in FIELDS[cls])

    def build(fields: Any) -> Record:
        if type(fields) is not list:
            raise CorruptValue("the payload is not a list of fields")
        return cls(*[lift(field) for lift, field in zip(lifts, fields, strict=True)])

    return build


# -- the commit: nearly every record is one -------------------------------------------------------------


def encode_commit(record: Commit) -> bytes:
    """`encode_fields` unrolled: it runs on the training thread, once an iteration."""
    try:
        flat: list[Any] = []
        for statement, name, value in record.values:
            kind = type(value)
            if kind is not float and kind is not str:
                value = lower(value, name, 0)
            if type(statement) is not int or type(name) is not str:
                return encode_fields(record)  # which names the field
            flat += (statement, name, value)
        if (
            type(record.loop) is type(record.index) is type(record.segment) is int
            and type(record.seconds) is float
            and type(record.rng) is type(record.data) is type(record.state) is bytes
            and type(record.left) is bool
            and type(record.values) is tuple
        ):
            return pack(
                [
                    record.loop, record.index, record.segment, flat, record.seconds,
                    record.rng, record.data, record.state, record.left,
                ]
            )  # fmt: skip
    except (OverflowError, TypeError, ValueError):
        pass
    return encode_fields(record)


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
    return _UnfrozenCommit(loop, index, segment, values, seconds, rng, data, state, left)  # type: ignore[return-value]


class _UnfrozenCommit:
    """A `Commit` whose fields are set directly.

    A frozen dataclass sets them through object.__setattr__, which takes a third of the time of a scan.  This class
    has the same slots, sets them, and then becomes the frozen class.
    """

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


DECODERS: Final[dict[int, Callable[[Any], Record]]] = {
    number: _decoder(cls) for number, cls in RECORD_TYPES.items()
} | {Commit.TYPE: _decode_commit}
