"""Python types beyond plain values that tracked state may hold, and how a user adds one.

A codec turns an object into a tree and back.  The common types of the standard library have one here.
Enumerations, dataclasses and named tuples need none, because their fields are all that they hold.  Any other type gets
one from `register`.  A codec is for values: decoding makes a new, equal object, and who else refers to it is not kept.
A subclass, or a dataclass with attributes in addition to its fields, is refused: what it adds would be lost.

Reading a log must execute nothing that the log names.  So a class is found by its name only among the modules that
are imported already, and it is never called: a dataclass is filled field by field, without ``__init__``.
Where the class is not there, as in a program that only reads the store, the object comes back as a
`Foreign`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from florlog_wal import Unencodable

from florlog.errors import TrackError


class Codec(NamedTuple):
    """How objects of one type become trees."""

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Foreign:
    """An object of a class that this program does not have: its class's name, and its state."""

    type_name: str
    state: Any


_codecs: dict[type, Codec] = {}
_by_name: dict[str, Codec] = {}
_classes: dict[str, type] = {}


def register(kind: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
    """Let tracked state hold objects of a type (exactly this type, not its subclasses).

    ``encode`` turns an object into plain values, tensors, arrays or containers of them, ``decode`` makes an
    equal object from that.  Register before `track`, in the script itself, so that a resume finds it too.  Raises
    `TrackError` if ``kind`` is not a class.
    """
    if not isinstance(kind, type):
        raise TrackError(f"register() takes a class, and got {kind!r}")
    _put(kind, encode, decode)


def _put(kind: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
    name = class_name(kind)
    _codecs[kind] = _by_name[name] = Codec(name, encode, decode)


def class_name(kind: type) -> str:
    """A class's name in the log: ``module:qualified name``."""
    return f"{kind.__module__}:{kind.__qualname__}"


def codec_of(kind: type) -> Codec | None:
    """The codec for objects of exactly this type."""
    return _codecs.get(kind)


def decode(name: str, state: Any) -> Any:
    """The object that the codec ``name`` encoded; a `Foreign` where this program has no such codec."""
    codec = _by_name.get(name)
    return Foreign(name, state) if codec is None else codec.decode(state)


def fields_of(value: Any) -> tuple[str, dict[str, Any]] | None:
    """The class name and the fields of an enumeration's member, a dataclass or a named tuple; else None."""
    kind = type(value)
    fields: dict[str, Any]
    if isinstance(value, enum.Enum):
        fields = {"": value.name if value.name in kind.__members__ else value.value}
    elif dataclasses.is_dataclass(kind):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if hasattr(value, f.name)}
        if len(fields) < len(getattr(value, "__dict__", fields)):
            return None  # attributes in addition to its fields: these would be lost
    elif isinstance(value, tuple) and kind is not tuple and hasattr(kind, "_fields"):
        fields = dict(zip(kind._fields, value, strict=True))
    else:
        return None
    name = class_name(kind)
    _classes[name] = kind
    return name, fields


def with_fields(name: str, fields: dict[str, Any]) -> Any:
    """The object that `fields_of` took apart; a `Foreign` where this program does not have its class."""
    kind = _find(name)
    if kind is None:
        return Foreign(name, fields)
    if issubclass(kind, enum.Enum):
        held = fields[""]
        return kind[held] if isinstance(held, str) and held in kind.__members__ else kind(held)
    if issubclass(kind, tuple):
        return tuple.__new__(kind, fields.values())
    made = object.__new__(kind)
    for field, value in fields.items():
        object.__setattr__(made, field, value)
    return made


def _find(name: str) -> type | None:
    if name in _classes:
        return _classes[name]
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = vars(found).get(part) if found is not None and hasattr(found, "__dict__") else None
    fits = isinstance(found, type) and (
        issubclass(found, enum.Enum)
        or dataclasses.is_dataclass(found)
        or (issubclass(found, tuple) and hasattr(found, "_fields"))
    )
    return found if fits else None


# -- the standard library, NumPy and torch ------------------------------------------------------------


def _zone(zone: dt.tzinfo | None) -> Any:
    if zone is None:
        return None
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        return zone.key
    if type(zone) is dt.timezone and (offset := zone.utcoffset(None)) is not None:
        return _span(offset)
    raise Unencodable(f"time zone of type {type(zone).__name__}", "")


def _zone_back(zone: Any) -> dt.tzinfo | None:
    if isinstance(zone, str):
        return zoneinfo.ZoneInfo(zone)
    return None if zone is None else dt.timezone(dt.timedelta(*zone))


def _span(value: dt.timedelta) -> tuple[int, int, int]:
    return value.days, value.seconds, value.microseconds


def _moment(value: dt.datetime) -> Any:
    return value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value.tzinfo)


def _moment_back(state: Any) -> dt.datetime:
    text, fold, zone = state
    return dt.datetime.fromisoformat(text).replace(fold=fold, tzinfo=_zone_back(zone))


def _clock(value: dt.time) -> Any:
    return value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value.tzinfo)


def _clock_back(state: Any) -> dt.time:
    text, fold, zone = state
    return dt.time.fromisoformat(text).replace(fold=fold, tzinfo=_zone_back(zone))


def _install() -> None:
    _put(dt.date, dt.date.isoformat, dt.date.fromisoformat)
    _put(dt.datetime, _moment, _moment_back)
    _put(dt.time, _clock, _clock_back)
    _put(dt.timedelta, _span, lambda state: dt.timedelta(*state))
    for path in (pathlib.PosixPath, pathlib.PurePosixPath, pathlib.PureWindowsPath):
        _put(path, str, path)
    _put(uuid.UUID, lambda value: value.bytes, lambda state: uuid.UUID(bytes=state))
    _put(decimal.Decimal, str, decimal.Decimal)
    _put(fractions.Fraction, lambda v: (v.numerator, v.denominator), lambda s: fractions.Fraction(*s))
    _put(bytearray, bytes, bytearray)
    _put(range, lambda value: (value.start, value.stop, value.step), lambda state: range(*state))
    _put(slice, lambda value: (value.start, value.stop, value.step), lambda state: slice(*state))
    _put(torch.Size, tuple, torch.Size)
    _put(torch.device, str, torch.device)
    _put(torch.dtype, lambda v: str(v).removeprefix("torch."), lambda s: _torch_dtype(s))
    for kind in {type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDG"}:
        _put(kind, lambda value: value.str, np.dtype)


def _torch_dtype(name: str) -> Any:
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else Foreign("torch:dtype", name)


_install()
