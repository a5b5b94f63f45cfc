"""Logged values and records as JSON, and as short text that is safe on a terminal."""

from __future__ import annotations

import base64
import itertools
import math
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from florlog_wal import Array

from florlog.state.readable_values import readable

_MAX_DECIMAL_BITS = 10_000  # bits of an integer that is written in decimal digits


def jsonable(value: Any) -> Any:
    """A value in JSON's types: arrays as nested lists, bytes in base64, what JSON lacks as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, int) and value.bit_length() > _MAX_DECIMAL_BITS:
        return hex(value)  # Python refuses to write so many decimal digits
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Array):
        found = readable(value)
        if isinstance(found, Array):  # a shape that does not fit the bytes, a dtype that torch lacks
            return {"dtype": value.dtype, "shape": list(value.shape), "data": value.data.hex()}
        return jsonable(found.tolist())
    if _is_array(value):
        return jsonable(value.tolist())
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [jsonable(item) for item in value]
    return str(value)


def _is_array(value: Any) -> bool:
    """Whether a value is a NumPy array or a tensor.  Where torch is not imported there are no tensors."""
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def fits_float(value: Any) -> bool:
    """Whether a value is a number that a float can hold: a logged integer may have any number of digits."""
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 1024)


def printable(text: str) -> str:
    """Text without control characters: a log may contain a terminal's escape sequences, or half a letter."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def brief(value: Any, width: int = 60) -> str:
    """A value as one printable line of at most ``width`` characters, whatever its size and depth."""
    text = printable(_brief(value, width, 3))
    return text if len(text) <= width else text[: width - 3] + "..."


def _brief(value: Any, width: int, depth: int) -> str:
    if isinstance(value, str):
        return repr(value[: width + 1])
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes {bytes(value[: width // 2]).hex()}"
    if isinstance(value, int) and value.bit_length() > 4 * width:
        return (
            f"integer of {value.bit_length()} bits"  # writing its digits may take longer than anybody waits
        )
    if value is None or isinstance(value, bool | int | float | complex):
        return f"{value:.6g}" if isinstance(value, float) else repr(value)
    if isinstance(value, Array) or _is_array(value):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype[:width]}[{', '.join(map(str, tuple(value.shape)[:8]))}]"
    if isinstance(value, dict):
        pairs = (f"{_brief(k, width, 0)}: {_brief(v, width, depth - 1)}" for k, v in value.items())
        return "{" + _joined(pairs, width, depth) + "}"
    if isinstance(value, list | tuple | set | frozenset | deque):
        left, right = ("(", ")") if isinstance(value, tuple) else ("[", "]")
        return left + _joined((_brief(item, width, depth - 1) for item in value), width, depth) + right
    return type(value).__name__


def _joined(parts: Iterable[str], width: int, depth: int) -> str:
    if depth <= 0:
        return "..."
    taken, length = [], 0
    for part in itertools.islice(parts, width):
        taken.append(part)
        length += len(part) + 2
        if length > width:
            return ", ".join([*taken, "..."])
    return ", ".join(taken)
