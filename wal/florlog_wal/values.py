"""Values to bytes and back: the part of the format for logged values and host state.

A scalar is one msgpack object.  A container is one msgpack *extension* object, whose payload is the plain
concatenation of its items.  So each container has its length in bytes, which must fit into the bytes that are
there: a damaged count can never ask for memory, and a reader can skip what it does not need.  msgpack's
own arrays and maps do not occur in a value, and the decoder refuses them.

Types are exact: a tuple comes back as a tuple, True as True and not as 1, a NaN with its payload.  A type
that is not in the table is refused with its name and place (`Unencodable`) and never approximated, because a replay
compares its values with those of the log.  The encoding is deterministic: the items of a set are sorted by
their bytes, and a dict keeps its insertion order, which is part of its value here.

There is no pickle: decoding runs no code that the bytes name.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgpack

from florlog_wal.errors import CorruptValue, Unencodable
from florlog_wal.records import Array

MAX_DEPTH: Final = 100
"""How deep containers may nest.  Both directions refuse more, so that neither can exhaust the stack."""

EXT_TUPLE: Final = 1
EXT_LIST: Final = 2
EXT_DICT: Final = 3
EXT_SET: Final = 4
EXT_FROZENSET: Final = 5
EXT_COMPLEX: Final = 6
EXT_DEQUE: Final = 7
EXT_INT: Final = 8
EXT_ARRAY: Final = 9

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1

SCALARS: Final = frozenset({type(None), bool, float, str, bytes})
"""Types that msgpack holds exactly; int too, within 64 bits."""

_FOREIGN: Final = frozenset({msgpack.Timestamp})
LAST_ITEM: Final = b"\xc0"
"""None, after the items of a container: it comes out as itself only if the item before it is whole."""
_COMPLEX: Final = struct.Struct(">dd")
_ext = msgpack.ExtType
_packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogatepass")
pack: Final[Callable[[Any], bytes]] = _packer.pack
"""One packer serves all threads: it calls back into no Python code, so the GIL makes each call atomic."""


def encode_value(obj: object) -> bytes:
    """The bytes of a value; raises `Unencodable` for a type that the log does not take."""
    return pack(lower(obj, "", 0))


def decode_value(data: bytes | memoryview) -> Any:
    """The value that the bytes encode; raises `CorruptValue` and nothing else."""
    try:
        value = msgpack.unpackb(
            data, ext_hook=_HOOKS[0], unicode_errors="surrogatepass", max_array_len=0, max_map_len=0
        )
    except CorruptValue:
        raise
    except Exception as error:  # msgpack's own set of exceptions is open; all mean the same here
        raise CorruptValue(f"{type(error).__name__}: {error}") from None
    if type(value) in _FOREIGN:
        raise CorruptValue(f"a {type(value).__name__} of msgpack's own")
    return value


def lower(obj: Any, where: str, depth: int) -> Any:
    """An object that msgpack packs exactly: a scalar itself, or an extension with the items of a container.

    ``where`` is the place that `Unencodable` names, ``depth`` the number of containers around ``obj``.
    """
    kind = type(obj)
    if kind in SCALARS:
        return obj
    if kind is int:
        if INT_MIN <= obj <= INT_MAX:
            return obj
        return _ext(EXT_INT, obj.to_bytes(obj.bit_length() // 8 + 1, "big", signed=True))
    if depth >= MAX_DEPTH:
        raise Unencodable(f"{kind.__name__} nested deeper than {MAX_DEPTH}", where)
    if kind is tuple or kind is list:
        return _ext(EXT_TUPLE if kind is tuple else EXT_LIST, _items(obj, where, depth))
    if kind is dict:
        parts: list[bytes] = []
        for key, value in obj.items():
            inner = f"{where}[{key!r}]"
            parts.append(pack(lower(key, inner, depth + 1)))
            parts.append(pack(lower(value, inner, depth + 1)))
        return _ext(EXT_DICT, b"".join(parts))
    if kind is set or kind is frozenset:
        packed = sorted(pack(lower(item, f"{where}{{...}}", depth + 1)) for item in obj)
        return _ext(EXT_SET if kind is set else EXT_FROZENSET, b"".join(packed))
    if kind is complex:
        return _ext(EXT_COMPLEX, _COMPLEX.pack(obj.real, obj.imag))
    if kind is deque:
        return _ext(EXT_DEQUE, pack(obj.maxlen) + _items(obj, where, depth))
    if kind is Array:
        return _ext(EXT_ARRAY, _array(obj, where))
    raise Unencodable(kind.__qualname__, where)


def _items(obj: Any, where: str, depth: int) -> bytes:
    """The concatenated encodings of a sequence's items."""
    return b"".join([pack(lower(item, f"{where}[{i}]", depth + 1)) for i, item in enumerate(obj)])


def _array(array: Array, where: str) -> bytes:
    if not (
        type(array.dtype) is str
        and type(array.data) is bytes
        and type(array.shape) is tuple
        and all(type(n) is int and 0 <= n <= INT_MAX for n in array.shape)
    ):
        raise Unencodable("Array with fields of other types than str, tuple of int, bytes", where)
    return b"".join([pack(array.dtype), pack(array.data), *map(pack, array.shape)])


def _unpack_items(payload: bytes, depth: int) -> list[Any]:
    if depth > MAX_DEPTH:
        raise CorruptValue(f"nested deeper than {MAX_DEPTH}")
    unpacker = msgpack.Unpacker(
        ext_hook=_HOOKS[depth], unicode_errors="surrogatepass", max_buffer_size=len(payload) + 1,
        max_array_len=0, max_map_len=0,
    )  # fmt: skip
    unpacker.feed(payload)
    unpacker.feed(LAST_ITEM)
    items = list(unpacker)
    if not _FOREIGN.isdisjoint(map(type, items)):
        raise CorruptValue("a timestamp of msgpack's own")
    if unpacker.tell() != len(payload) + 1 or items.pop() is not None:
        raise CorruptValue("an item is cut off")
    return items


def _lift(code: int, payload: bytes, depth: int) -> Any:
    if code == EXT_INT:
        if len(payload) <= 8:
            raise CorruptValue("a long integer that is short")
        return int.from_bytes(payload, "big", signed=True)
    if code == EXT_COMPLEX:
        return complex(*_COMPLEX.unpack(payload))
    items = _unpack_items(payload, depth + 1)
    if code == EXT_LIST:
        return items
    if code == EXT_TUPLE:
        return tuple(items)
    if code == EXT_DICT:
        keys = items[::2]
        result = dict(zip(keys, items[1::2], strict=True))
        if len(result) != len(keys):
            raise CorruptValue("a key occurs twice in a dict")
        return result
    if code == EXT_SET:
        return set(items)
    if code == EXT_FROZENSET:
        return frozenset(items)
    if code == EXT_DEQUE:
        return _lift_deque(items)
    if code == EXT_ARRAY:
        return _lift_array(items)
    raise CorruptValue(f"unknown extension {code}")


def _lift_deque(items: list[Any]) -> deque[Any]:
    maxlen, *rest = items
    if not (maxlen is None or (type(maxlen) is int and maxlen >= len(rest))):
        raise CorruptValue("a deque longer than its limit")
    return deque(rest, maxlen)


def _lift_array(items: list[Any]) -> Array:
    dtype, data, *shape = items
    if not (type(dtype) is str and type(data) is bytes and all(type(n) is int and n >= 0 for n in shape)):
        raise CorruptValue("an array's fields have wrong types")
    return Array(dtype, tuple(shape), data)


def _hook(depth: int) -> Callable[[int, bytes], Any]:
    """msgpack's extension hook for objects inside ``depth`` containers."""
    return lambda code, payload: _lift(code, bytes(payload), depth)


_HOOKS: Final = [_hook(depth) for depth in range(MAX_DEPTH + 1)]
lift_extension: Final = _HOOKS[0]
"""For the codec of records, whose fields may be values."""
