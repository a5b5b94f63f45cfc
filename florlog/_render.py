"""Logged values and records as JSON."""

from __future__ import annotations

import base64
import math
from collections import deque
from typing import Any

import numpy as np
from florlog_wal import Array

from ._tree import readable


def jsonable(value: Any) -> Any:
    """A value in JSON's types: arrays as nested lists, bytes in base64, what JSON lacks as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Array):
        found = readable(value)
        return jsonable(found.tolist())
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [jsonable(item) for item in value]
    return str(value)
