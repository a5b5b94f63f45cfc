"""How objects describe themselves: a callable, its arguments and a state, from which an equal one is made.

This is what `pickle` asks them.  Some classes of the standard library do not answer, though what made their objects can
be read from these; they are described here.
"""

from __future__ import annotations

import copyreg
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np


def described(value: Any) -> Any:
    """An object's description: what to call, with which arguments.  Raises whatever the object raises."""
    if (own := _OWN.get(type(value))) is not None:
        return own(value)
    if (reducer := copyreg.dispatch_table.get(type(value))) is not None:
        return reducer(value)
    return value.__reduce_ex__(4)


def matched(
    pattern: re.Pattern[Any], text: Any, begin: int, end: int, regs: tuple[Any, ...]
) -> re.Match[Any]:
    """The match of a pattern in a text whose groups are at ``regs``.  Raises ValueError where there is none."""
    for search in (pattern.fullmatch, pattern.match, pattern.search):
        found = search(text, begin, end)
        if found is not None and found.regs == regs:
            return found
    raise ValueError(f"{pattern.pattern!r} does not match as it did")


def _match(value: re.Match[Any]) -> tuple[Any, ...]:
    begin = value.pos
    first = value.re.search(value.string, begin, value.endpos)
    if first is None or first.regs != value.regs:  # one of several
        begin = value.start()
    return matched, (value.re, value.string, begin, value.endpos, value.regs)


def _record(value: np.void) -> Any:
    if value.base is not None:
        raise TypeError("it is a part of an array")
    return value.__reduce_ex__(4)


_OWN: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    struct.Struct: lambda value: (struct.Struct, (value.format,)),
    re.Match: _match,
    np.void: _record,
    np.record: _record,
}
